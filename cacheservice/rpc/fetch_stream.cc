#include "cacheservice/rpc/fetch_stream.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/checksum.h"
#include "cacheservice/rpc/cache_store_service.h"
#include "cacheservice/wire/messages.h"

namespace tidepool {
namespace {

constexpr size_t kBlocksAtOnce = 16;

}  // namespace

FetchStream::FetchStream(CacheContext* context, const v1::FetchBlocksRequest* request) : context_(context) {
  if (request->blocks_size() > kMaxWireSelections) {
    Finish(ToGrpc(absl::InvalidArgumentError(
        absl::StrCat("blocks: ", request->blocks_size(), ", at most ", kMaxWireSelections))));
    return;
  }
  for (const v1::BlockRef& ref : request->blocks()) {
    absl::StatusOr<BlockId> id = BlockOf(ref);
    if (!id.ok()) {
      Finish(ToGrpc(id.status()));
      return;
    }
    ids_.push_back(*id);
  }
  if (absl::Status queued = context_->Run([this] { ReadMore(); }); !queued.ok()) Finish(ToGrpc(queued));
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
  response_.Clear();
  response_.set_index(static_cast<uint32_t>(first_ + current_));
  if (const BlockValue& value = values_[current_]; value == nullptr) {
    response_.set_missing(true);
    ++current_;
  } else {
    const size_t bytes = std::min(kWireFrameBytes, value->size() - offset_);
    if (offset_ == 0) response_.set_value_bytes(static_cast<uint32_t>(value->size()));
    response_.set_payload(value->substr(offset_, bytes));
    response_.set_checksum(Checksum32(response_.payload()));
    offset_ += bytes;
    if (offset_ == value->size()) {
      ++current_;
      offset_ = 0;
    }
  }
  StartWrite(&response_);
}

void FetchStream::OnWriteDone(bool ok) {
  if (!ok) return Finish(grpc::Status(grpc::StatusCode::CANCELLED, "the worker is gone"));
  if (current_ < values_.size()) return SendNext();
  context_->pool.Run([this] { ReadMore(); });
}

}  // namespace tidepool
