#include "cacheservice/remote/fetched_values.h"

#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "cacheservice/wire/messages.h"
#include "cacheservice/wire/payload_message.h"
#include "policies/kv/block_codec.h"
#include "tidepool/v1/cache_store.pb.h"

namespace tidepool {
namespace {

bool IsWhole(std::string_view value) {
  const absl::StatusOr<BlockView> view = BlockView::Parse(value);
  return view.ok() && view->VerifyRows().ok();
}

}  // namespace

absl::Status FetchedValues::Take(grpc::ByteBuffer* message) {
  if (bad_.ok()) bad_ = Append(message);
  return bad_;
}

absl::Status FetchedValues::Append(grpc::ByteBuffer* message) {
  v1::FetchBlocksResponse frame;
  Payload payload;
  if (!SplitPayload(message, kFetchedPayload, &frame, &payload).ok()) {
    return absl::DataLossError("cache service: what it sent is no FetchBlocksResponse");
  }
  if (frame.index() >= parts_.size()) {
    return absl::DataLossError(absl::StrCat("cache service: a block was sent that nobody asked for, ", frame.index()));
  }
  if (frame.missing()) return absl::OkStatus();
  Part& part = parts_[frame.index()];
  if (!part.value.has_value()) {
    if (frame.value_bytes() > kMaxWireValueBytes) return absl::DataLossError("cache service: a block is too large");
    part.bytes = frame.value_bytes();
    part.value.emplace().reserve(part.bytes);
  }
  const size_t before = part.value->size();
  if (before + payload.size() > part.bytes) {
    return absl::DataLossError("cache service: a block goes on past its size");
  }
  payload.AppendTo(&*part.value);
  TP_RETURN_IF_ERROR(CheckFrame("block", std::string_view(*part.value).substr(before),
                                unchecked_ ? std::nullopt : std::optional<uint32_t>(frame.checksum())));
  part.damaged = part.value->size() == part.bytes && !IsWhole(*part.value);
  return absl::OkStatus();
}

absl::Status FetchedValues::CheckComplete() const {
  for (const Part& part : parts_) {
    if (part.value.has_value() && part.value->size() != part.bytes) {
      return absl::DataLossError("cache service: a block was cut off");
    }
  }
  return absl::OkStatus();
}

std::vector<size_t> FetchedValues::damaged() const {
  std::vector<size_t> indices;
  for (size_t i = 0; i < parts_.size(); ++i) {
    if (parts_[i].damaged) indices.push_back(i);
  }
  return indices;
}

void FetchedValues::Replace(const std::vector<size_t>& indices, FetchedValues others) {
  for (size_t i = 0; i < indices.size(); ++i) parts_[indices[i]] = std::move(others.parts_[i]);
}

std::vector<std::optional<std::string>> FetchedValues::Values() && {
  std::vector<std::optional<std::string>> values;
  values.reserve(parts_.size());
  for (Part& part : parts_) values.push_back(part.damaged ? std::nullopt : std::move(part.value));
  return values;
}

}  // namespace tidepool
