// How a stream of the cache service ended, and what that means for what was under way on it.
#ifndef TIDEPOOL_CACHESERVICE_REMOTE_STREAM_END_H_
#define TIDEPOOL_CACHESERVICE_REMOTE_STREAM_END_H_

#include <grpcpp/grpcpp.h>

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace tidepool {

// The service has looked at what it was sent and will not have it: saying the same again gives the same answer.
inline bool IsRefusal(const grpc::Status& status) {
  switch (status.error_code()) {
    case grpc::StatusCode::INVALID_ARGUMENT:
    case grpc::StatusCode::FAILED_PRECONDITION:
    case grpc::StatusCode::UNIMPLEMENTED:
    case grpc::StatusCode::PERMISSION_DENIED:
    case grpc::StatusCode::UNAUTHENTICATED: return true;
    default: return false;
  }
}

// The service not knowing the worker, or not letting it, says nothing about who asked the worker. Nor has he cancelled
// what was cancelled: the service was given up.
inline absl::StatusCode CodeForCaller(grpc::StatusCode code) {
  const bool refused = code == grpc::StatusCode::PERMISSION_DENIED || code == grpc::StatusCode::UNAUTHENTICATED;
  if (code == grpc::StatusCode::CANCELLED) return absl::StatusCode::kUnavailable;
  return refused ? absl::StatusCode::kFailedPrecondition : static_cast<absl::StatusCode>(code);
}

inline absl::Status RefusalOf(const std::string& endpoint, const grpc::Status& status) {
  return absl::Status(CodeForCaller(status.error_code()),
                      absl::StrCat("cache service ", endpoint, ": ", status.error_message()));
}

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_REMOTE_STREAM_END_H_
