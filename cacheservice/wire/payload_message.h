// Messages with one large `bytes` field, the payload, as gRPC's byte buffers. The bytes on the wire are those that
// protobuf would write; the payload itself goes out from where it lies, and comes in without passing through a string
// of the message's own: a value is copied once on its way in and not at all on its way out.
#ifndef TIDEPOOL_CACHESERVICE_WIRE_PAYLOAD_MESSAGE_H_
#define TIDEPOOL_CACHESERVICE_WIRE_PAYLOAD_MESSAGE_H_

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"

namespace google::protobuf {
class MessageLite;
}  // namespace google::protobuf

namespace tidepool {

// Where a message has its payload: in `field` of itself, or of the message in its field `inner`.
struct PayloadPlace {
  int inner = 0;  // 0: in the message itself
  int field = 0;
  int instead = 0;  // a message that is in a oneof with `inner`: where it comes later, the payload is gone
};
// Of the messages of cache_store.proto.
inline constexpr PayloadPlace kBlockFramePayload = {
    .inner = 2, .field = 5, .instead = 1};                                  // OffloadRequest.frame.payload
inline constexpr PayloadPlace kFetchedPayload = {.inner = 0, .field = 4};   // FetchBlocksResponse.payload
inline constexpr PayloadPlace kRecalledPayload = {.inner = 0, .field = 3};  // RecallResponse.rows

// `size` bytes at `offset` of what `owner` holds, which lives until gRPC has let go of the slice.
grpc::Slice SharedSlice(const std::shared_ptr<const std::string>& owner, size_t offset, size_t size);

// `message`, whose field at place.field is empty: the message that contains the payload directly (place.inner is put
// around it). An empty payload is left out.
grpc::ByteBuffer WithPayload(const google::protobuf::MessageLite& message, PayloadPlace place,
                             const grpc::Slice& payload);

// The payload of a message, in the pieces that the network brought it in.
class Payload {
 public:
  Payload() = default;
  Payload(Payload&&) = default;  // a short slice's bytes lie in the slice: parts_ would point into the original's
  Payload& operator=(Payload&&) = default;

  size_t size() const { return size_; }
  void AppendTo(std::string* bytes) const;

 private:
  friend class PayloadParser;
  std::vector<grpc::Slice> slices_;      // of the whole message
  std::vector<std::string_view> parts_;  // of the payload, in slices_
  size_t size_ = 0;
};

// Splits a message into `message`, without its payload, and the payload. Empties `bytes`. InvalidArgument when they are
// no such message.
absl::Status SplitPayload(grpc::ByteBuffer* bytes, PayloadPlace place, google::protobuf::MessageLite* message,
                          Payload* payload);

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_WIRE_PAYLOAD_MESSAGE_H_
