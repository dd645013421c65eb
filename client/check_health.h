// Asks a server of ours by gRPC's health protocol (grpc.health.v1.Health) whether it serves. Blocking; no gRPC types.
#ifndef TIDEPOOL_CLIENT_CHECK_HEALTH_H_
#define TIDEPOOL_CLIENT_CHECK_HEALTH_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace tidepool {

class ChannelSecurity;  // security/rpc/channel_security.h

// OK when the server as a whole serves; FailedPrecondition when it says that it does not; else the call's error.
// address: host:port or unix:PATH. security: null is plain text without a token.
absl::Status CheckHealth(const std::string& address, std::shared_ptr<const ChannelSecurity> security,
                         absl::Time deadline);

}  // namespace tidepool

#endif  // TIDEPOOL_CLIENT_CHECK_HEALTH_H_
