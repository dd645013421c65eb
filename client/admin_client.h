// A client of a cache service's CacheAdmin. Blocking calls; no gRPC types.
#ifndef TIDEPOOL_CLIENT_ADMIN_CLIENT_H_
#define TIDEPOOL_CLIENT_ADMIN_CLIENT_H_

#include <cstdint>
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
  absl::StatusOr<v1::SessionDescription> Describe(const std::string& session_id, bool with_keys = false);
  absl::Status Drop(const std::string& session_id);
  absl::StatusOr<v1::ExplainResponse> Explain(v1::ExplainRequest request);
  // Tenant fields are filled in.
  absl::StatusOr<v1::PinDescription> Pin(v1::PinRequest request);
  absl::Status Unpin(v1::UnpinRequest request);
  absl::StatusOr<v1::ListPinsResponse> Pins();
  // Of the tenant, which must be given.
  absl::Status SetQuota(const v1::TenantQuota& quota);
  absl::StatusOr<v1::GetConfigResponse> Config();
  absl::StatusOr<v1::ConfigFlag> SetConfig(const std::string& name, const std::string& value);
  // `report` gets each state, the last one, too. As long as it takes.
  absl::Status Scrub(uint64_t bytes_per_second, const std::function<void(const v1::ScrubProgress&)>& report);
  absl::Status Compact(const std::function<void(const v1::CompactProgress&)>& report);
  // Empties a pod onto its peers. `report` gets each state, the last one, too. As long as it takes.
  absl::Status Drain(bool all_blocks, const std::function<void(const v1::DrainProgress&)>& report);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CLIENT_ADMIN_CLIENT_H_
