// Any bytes as a message with a payload, in slices of any size: refused, or split as protobuf understands it, however
// the bytes came; and any bytes as what the cache service sends to a fetch, or a worker to an offload.
#include <google/protobuf/stubs/logging.h>

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/check.h"
#include "cacheservice/remote/fetched_values.h"
#include "cacheservice/wire/messages.h"
#include "cacheservice/wire/payload_message.h"
#include "policies/kv/block_codec.h"
#include "tests/fuzz/fuzz_target.h"
#include "tidepool/v1/cache_store.pb.h"

namespace tidepool {
namespace {

constexpr size_t kAsked = 3;  // blocks of a fetch

grpc::ByteBuffer InSlices(std::string_view bytes, size_t slice_bytes) {
  std::vector<grpc::Slice> slices;
  for (size_t at = 0; at < bytes.size(); at += slice_bytes) {
    const std::string_view slice = bytes.substr(at, slice_bytes);
    slices.emplace_back(slice.data(), slice.size());
  }
  return grpc::ByteBuffer(slices.data(), slices.size());
}

struct Split {
  std::string rest, payload;
};

template <typename Message>
std::optional<Split> SplitIn(std::string_view bytes, size_t slice_bytes, PayloadPlace place) {
  grpc::ByteBuffer buffer = InSlices(bytes, slice_bytes);
  Message message;
  Payload payload;
  if (!SplitPayload(&buffer, place, &message, &payload).ok()) return std::nullopt;
  Split split;
  payload.AppendTo(&split.payload);
  TIDEPOOL_CHECK(split.payload.size() == payload.size() && payload.size() <= bytes.size());
  TIDEPOOL_CHECK(message.SerializeToString(&split.rest));
  return split;
}

// `take` empties the payload of a message and returns it.
template <typename Message, typename Take>
void CheckSplit(std::string_view bytes, size_t slice_bytes, PayloadPlace place, Take take) {
  const std::optional<Split> whole = SplitIn<Message>(bytes, bytes.size() + 1, place);
  const std::optional<Split> pieces = SplitIn<Message>(bytes, slice_bytes, place);
  TIDEPOOL_CHECK(whole.has_value() == pieces.has_value());
  Message message;
  if (!whole.has_value()) return;
  TIDEPOOL_CHECK(whole->rest == pieces->rest && whole->payload == pieces->payload);
  // Protobuf takes groups, which we refuse, and no tags that are longer than need be, which we make short.
  if (!message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return;
  TIDEPOOL_CHECK(take(&message) == whole->payload);
  TIDEPOOL_CHECK(message.SerializeAsString() == whole->rest);
}

std::string Taken(std::string* payload) { return std::exchange(*payload, std::string()); }

void RunInput(std::string_view bytes) {
  [[maybe_unused]] static const auto silent = google::protobuf::SetLogHandler(nullptr);  // of strings that are no UTF-8
  const size_t slice_bytes = bytes.empty() ? 1 : 1 + static_cast<uint8_t>(bytes.back()) % 61;
  CheckSplit<v1::OffloadRequest>(bytes, slice_bytes, kBlockFramePayload, [](v1::OffloadRequest* message) {
    return message->has_frame() ? Taken(message->mutable_frame()->mutable_payload()) : std::string();
  });
  CheckSplit<v1::FetchBlocksResponse>(bytes, slice_bytes, kFetchedPayload, [](v1::FetchBlocksResponse* message) {
    return Taken(message->mutable_payload());
  });
  CheckSplit<v1::RecallResponse>(bytes, slice_bytes, kRecalledPayload,
                                 [](v1::RecallResponse* message) { return Taken(message->mutable_rows()); });

  for (const bool unchecked : {false, true}) {
    FetchedValues fetched(kAsked, unchecked);
    for (int frame = 0; frame < 2; ++frame) {
      grpc::ByteBuffer message = InSlices(bytes, slice_bytes);
      const absl::Status taken = fetched.Take(&message);
      TIDEPOOL_CHECK(taken.ok() || taken.code() == absl::StatusCode::kDataLoss);
    }
    TIDEPOOL_CHECK(fetched.damaged().size() <= kAsked);
    if (!fetched.bad().ok() || !fetched.CheckComplete().ok()) continue;
    for (const std::optional<std::string>& value : std::move(fetched).Values()) {
      if (!value.has_value()) continue;
      const absl::StatusOr<BlockView> view = BlockView::Parse(*value);
      TIDEPOOL_CHECK(view.ok() && view->VerifyRows().ok());
    }
  }

  v1::OffloadRequest request;
  if (!request.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return;
  LayoutOfHello(request.hello()).IgnoreError();
  if (const absl::StatusOr<BlockId> id = BlockOf(request.frame().block()); id.ok()) {
    TIDEPOOL_CHECK(*BlockOf(RefOf(*id)) == *id);
  }
  ParentOf(request.frame()).IgnoreError();
  TenantOfFrame(request.frame(), "tenant").IgnoreError();
}

}  // namespace

namespace test {

std::vector<std::string> FuzzSeeds() {
  KvLayout layout;
  layout.layers = 4;
  layout.kv_heads = 1;
  layout.head_dim = 2;
  const std::string value = BlockBuilder(layout, 1, 64, 2).Finish();
  const BlockId id = {.key = {}, .layer = 3};
  v1::OffloadRequest hello, frame;
  *hello.mutable_hello() = HelloOf("tenant", layout);
  *frame.mutable_frame()->mutable_block() = RefOf(id);
  frame.mutable_frame()->set_sequence(1);
  frame.mutable_frame()->set_value_bytes(static_cast<uint32_t>(value.size()));
  frame.mutable_frame()->set_unchecked(true);
  frame.mutable_frame()->set_payload(value);
  v1::FetchBlocksResponse fetched;
  fetched.set_index(1);
  fetched.set_value_bytes(static_cast<uint32_t>(value.size()));
  fetched.set_payload(value);
  v1::RecallResponse recalled;
  recalled.add_found(3);
  recalled.set_rows("rows");
  return {hello.SerializeAsString(), frame.SerializeAsString(), fetched.SerializeAsString(),
          recalled.SerializeAsString()};
}

}  // namespace test
}  // namespace tidepool

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tidepool::RunInput({reinterpret_cast<const char*>(data), size});
  return 0;
}
