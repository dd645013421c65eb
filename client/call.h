// What the clients' implementations share. Includes gRPC: for .cc files only.
#ifndef TIDEPOOL_CLIENT_CALL_H_
#define TIDEPOOL_CLIENT_CALL_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/limits.h"
#include "security/rpc/channel_security.h"

namespace tidepool::client {

inline std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address, const ChannelSecurity* security) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(static_cast<int>(kMaxMessageBytes));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 20'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  // A server that comes back is found at once; by default two minutes may pass between attempts.
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1'000);
  return OpenChannel(security, address, &arguments);
}

// Unavailable names the address, and what about the channel's security may be the cause.
inline absl::Status FromGrpc(const grpc::Status& status, const std::string& address, const ChannelSecurity* security) {
  const auto code = static_cast<absl::StatusCode>(status.error_code());
  if (code != absl::StatusCode::kUnavailable) return absl::Status(code, status.error_message());
  return absl::UnavailableError(absl::StrCat(address, ": ", Explained(security, status.error_message())));
}

// For calls that only look something up.
inline absl::Time ShortDeadline() { return absl::Now() + absl::Seconds(20); }

}  // namespace tidepool::client

#endif  // TIDEPOOL_CLIENT_CALL_H_
