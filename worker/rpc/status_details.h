// Statuses with details: RetryInfo, when the same request may be tried again. absl::Status carries it as a payload
// under its type's name, gRPC as status details.
#ifndef TIDEPOOL_WORKER_RPC_STATUS_DETAILS_H_
#define TIDEPOOL_WORKER_RPC_STATUS_DETAILS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace tidepool {

void SetRetryAfter(absl::Duration delay, absl::Status* status);
// For grpc::Status's error_details. Empty: there are none.
std::string StatusDetailsOf(const absl::Status& status);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_RPC_STATUS_DETAILS_H_
