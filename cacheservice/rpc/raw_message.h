// Messages of the raw methods. gRPC reports a message that it cannot parse exactly as the orderly end of a stream, so
// the long-lived streams take bytes and parse them here.
#ifndef TIDEPOOL_CACHESERVICE_RPC_RAW_MESSAGE_H_
#define TIDEPOOL_CACHESERVICE_RPC_RAW_MESSAGE_H_

#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/proto_utils.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace tidepool {

// Empties `bytes`. InvalidArgument when they are no `Message`.
template <typename Message>
absl::Status ParseRaw(grpc::ByteBuffer* bytes, Message* message) {
  if (grpc::SerializationTraits<Message>::Deserialize(bytes, message).ok()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("message: its bytes are no ", Message::descriptor()->name()));
}

template <typename Message>
grpc::ByteBuffer ToRaw(const Message& message) {
  grpc::ByteBuffer bytes;
  bool own_buffer = false;
  const grpc::Status written = grpc::SerializationTraits<Message>::Serialize(message, &bytes, &own_buffer);
  TIDEPOOL_CHECK(written.ok());
  return bytes;
}

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RPC_RAW_MESSAGE_H_
