// Text fields of requests are UTF-8; gRPC drops a message whose text is not, without saying which.
#ifndef TIDEPOOL_CLIENT_REQUEST_TEXT_H_
#define TIDEPOOL_CLIENT_REQUEST_TEXT_H_

#include "absl/status/status.h"
#include "tidepool/v1/generation.pb.h"

namespace tidepool::client {

// InvalidArgument naming the field and the byte.
absl::Status CheckText(const v1::GenerateRequest& request);
absl::Status CheckText(const v1::ChatRequest& request);
absl::Status CheckText(const v1::ListBlockKeysRequest& request);

}  // namespace tidepool::client

#endif  // TIDEPOOL_CLIENT_REQUEST_TEXT_H_
