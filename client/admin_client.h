// A client of a cache service's CacheAdmin. Blocking calls; no gRPC types.
#ifndef TIDEPOOL_CLIENT_ADMIN_CLIENT_H_
#define TIDEPOOL_CLIENT_ADMIN_CLIENT_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tidepool/v1/cache_admin.pb.h"

namespace tidepool {

class ChannelSecurity;  // security/rpc/channel_security.h

class AdminClient {
 public:
  // host:port or unix:PATH. tenant: empty is the caller's own, or "default". security: null is plain text without a
  // token.
  AdminClient(const std::string& address, std::string tenant,
              std::shared_ptr<const ChannelSecurity> security = nullptr);
  ~AdminClient();

  absl::StatusOr<v1::GetStatsResponse> Stats();
  // All of them, page by page.
  absl::StatusOr<std::vector<v1::SessionSummary>> Sessions();
  absl::StatusOr<v1::SessionDescription> Describe(const std::string& session_id);
  absl::Status Drop(const std::string& session_id);
  // Empties a pod onto its peers. `report` gets each state, the last one, too. As long as it takes.
  absl::Status Drain(bool all_blocks, const std::function<void(const v1::DrainProgress&)>& report);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CLIENT_ADMIN_CLIENT_H_
