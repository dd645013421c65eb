#include "cacheservice/rpc/fetch_stream.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/checksum.h"
#include "base/status_macros.h"
#include "cacheservice/rpc/cache_store_service.h"
#include "cacheservice/rpc/raw_message.h"
#include "cacheservice/wire/messages.h"
#include "cacheservice/wire/payload_message.h"
#include "tidepool/v1/cache_store.pb.h"

namespace tidepool {
namespace {

constexpr size_t kMostBlocksAtOnce = 16;
// What is verified is soon sent, out of the processor's caches: little is read at a time, and ahead.
constexpr size_t kBytesAtOnce = size_t{1} << 20;
constexpr size_t kMostQueuedBytes = size_t{1} << 20;

}  // namespace

FetchStream::FetchStream(CacheContext* context, grpc::ByteBuffer request) : context_(context), outbox_(this) {
  const absl::Status status = Take(&request);
  outbox_.BeginWork();
  if (status.ok()) {
    Read(/*may_wait=*/false);
  } else {
    outbox_.Close(ToGrpc(status));
    outbox_.EndWork();
  }
}

absl::Status FetchStream::Take(grpc::ByteBuffer* request) {
  v1::FetchBlocksRequest parsed;
  TP_RETURN_IF_ERROR(ParseRaw(request, &parsed));
  if (parsed.blocks_size() > kMaxWireSelections) {
    return absl::InvalidArgumentError(absl::StrCat("blocks: ", parsed.blocks_size(), ", at most ", kMaxWireSelections));
  }
  unchecked_ = parsed.unchecked();
  compute_bytes_per_second_ = static_cast<double>(parsed.compute_bytes_per_second());
  for (const v1::BlockRef& ref : parsed.blocks()) {
    TP_ASSIGN_OR_RETURN(ids_.emplace_back(), BlockOf(ref));
  }
  return absl::OkStatus();
}

void FetchStream::Read(bool may_wait) {
  absl::Status status;
  while (status.ok() && next_ < ids_.size()) {
    if (gone_) {
      status = absl::CancelledError("the worker is gone");
      break;
    }
    if (!SendAtOnce()) {
      if (!may_wait) {
        status = ReadOnPool();
        if (status.ok()) return;
        break;
      }
      status = ReadSome();
    }
    MutexLock lock(&mutex_);
    paused_ = status.ok() && outbox_.queued_bytes() > kMostQueuedBytes;
    if (paused_) return;
  }
  outbox_.Close(ToGrpc(status));
  outbox_.EndWork();
}

absl::Status FetchStream::ReadOnPool() {
  auto read = [this] { Read(/*may_wait=*/true); };
  if (next_ == 0) return context_->Run(read);
  context_->pool.Run(read);  // a call that has begun is not refused
  return absl::OkStatus();
}

bool FetchStream::SendAtOnce() {
  if (!unchecked_) return false;
  const BlockValue value = context_->blocks->GetAtOnce(ids_[next_]);
  if (value == nullptr) return false;
  Send(next_++, value);
  return true;
}

absl::Status FetchStream::ReadSome() {
  const size_t count =
      std::min(std::clamp<size_t>(kBytesAtOnce / value_bytes_, 1, kMostBlocksAtOnce), ids_.size() - next_);
  TP_ASSIGN_OR_RETURN(
      const std::vector<BlockValue> values,
      context_->blocks->GetMany(absl::MakeConstSpan(ids_).subspan(next_, count),
                                {absl::InfiniteFuture(), compute_bytes_per_second_},
                                unchecked_ ? TieredStore::Verify::kAsStored : TieredStore::Verify::kAll));
  for (const BlockValue& value : values) Send(next_++, value);
  return absl::OkStatus();
}

void FetchStream::Send(size_t index, const BlockValue& value) {
  v1::FetchBlocksResponse response;
  response.set_index(static_cast<uint32_t>(index));
  if (value == nullptr) {
    response.set_missing(true);
    return outbox_.Send(response);
  }
  value_bytes_ = value->size();
  response.set_value_bytes(static_cast<uint32_t>(value->size()));
  for (size_t offset = 0; offset < value->size();) {
    const size_t bytes = std::min(FrameBytesFor(value->size()), value->size() - offset);
    if (!unchecked_) response.set_checksum(Checksum32(value->data() + offset, bytes));
    outbox_.SendRaw(WithPayload(response, kFetchedPayload, SharedSlice(value, offset, bytes)));
    offset += bytes;
    response.clear_value_bytes();
  }
}

void FetchStream::OnWriteDone(bool ok) {
  if (!ok) gone_ = true;
  outbox_.BeginWork();  // until the end: the call may be over otherwise once the outbox knows
  outbox_.OnWriteDone(ok);
  bool read = false;
  {
    MutexLock lock(&mutex_);
    if (gone_ || outbox_.queued_bytes() <= kMostQueuedBytes) read = std::exchange(paused_, false);
  }
  if (read) Read(/*may_wait=*/false);
  outbox_.EndWork();
}

}  // namespace tidepool
