#include "cacheservice/remote/fetched_values.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "cacheservice/wire/messages.h"
#include "cacheservice/wire/payload_message.h"
#include "tidepool/v1/cache_store.pb.h"

namespace tidepool {

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
  if (frame.index() >= values_.size()) {
    return absl::DataLossError(absl::StrCat("cache service: a block was sent that nobody asked for, ", frame.index()));
  }
  if (frame.missing()) return absl::OkStatus();
  std::optional<std::string>& value = values_[frame.index()];
  size_t& size = sizes_[frame.index()];
  if (!value.has_value()) {
    if (frame.value_bytes() > kMaxWireValueBytes) return absl::DataLossError("cache service: a block is too large");
    size = frame.value_bytes();
    value.emplace().reserve(size);
  }
  if (value->size() + payload.size() > size) {
    return absl::DataLossError("cache service: a block goes on past its size");
  }
  payload.AppendTo(&*value);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::optional<std::string>>> FetchedValues::Values() && {
  for (size_t i = 0; i < values_.size(); ++i) {
    if (values_[i].has_value() && values_[i]->size() != sizes_[i]) {
      return absl::DataLossError("cache service: a block was cut off");
    }
  }
  return std::move(values_);
}

}  // namespace tidepool
