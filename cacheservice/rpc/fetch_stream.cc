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

constexpr size_t kBlocksAtOnce = 16;

}  // namespace

FetchStream::FetchStream(CacheContext* context, grpc::ByteBuffer request) : context_(context) {
  absl::Status status = Take(&request);
  if (status.ok()) status = context_->Run([this] { ReadMore(); });
  if (!status.ok()) Finish(ToGrpc(status));
}

absl::Status FetchStream::Take(grpc::ByteBuffer* request) {
  v1::FetchBlocksRequest parsed;
  TP_RETURN_IF_ERROR(ParseRaw(request, &parsed));
  if (parsed.blocks_size() > kMaxWireSelections) {
    return absl::InvalidArgumentError(absl::StrCat("blocks: ", parsed.blocks_size(), ", at most ", kMaxWireSelections));
  }
  for (const v1::BlockRef& ref : parsed.blocks()) {
    TP_ASSIGN_OR_RETURN(ids_.emplace_back(), BlockOf(ref));
  }
  return absl::OkStatus();
}

void FetchStream::ReadMore() {
  first_ += values_.size();
  current_ = offset_ = 0;
  values_.clear();
  if (first_ == ids_.size()) return Finish(grpc::Status::OK);
  const size_t count = std::min(kBlocksAtOnce, ids_.size() - first_);
  absl::StatusOr<std::vector<BlockValue>> values =
      context_->blocks->GetMany(absl::MakeConstSpan(ids_).subspan(first_, count));
  if (!values.ok()) return Finish(ToGrpc(values.status()));
  values_ = *std::move(values);
  SendNext();
}

void FetchStream::SendNext() {
  v1::FetchBlocksResponse response;
  grpc::Slice payload;
  response.set_index(static_cast<uint32_t>(first_ + current_));
  if (const BlockValue& value = values_[current_]; value == nullptr) {
    response.set_missing(true);
    ++current_;
  } else {
    const size_t bytes = std::min(FrameBytesFor(value->size()), value->size() - offset_);
    if (offset_ == 0) response.set_value_bytes(static_cast<uint32_t>(value->size()));
    response.set_checksum(Checksum32(value->data() + offset_, bytes));
    payload = SharedSlice(value, offset_, bytes);
    offset_ += bytes;
    if (offset_ == value->size()) {
      ++current_;
      offset_ = 0;
    }
  }
  message_ = WithPayload(response, kFetchedPayload, payload);
  StartWrite(&message_);
}

void FetchStream::OnWriteDone(bool ok) {
  if (!ok) return Finish(grpc::Status(grpc::StatusCode::CANCELLED, "the worker is gone"));
  if (current_ < values_.size()) return SendNext();
  context_->pool.Run([this] { ReadMore(); });
}

}  // namespace tidepool
