// The cache service as a gRPC server: CacheStore, CacheAdmin, health and reflection over one data directory.
#ifndef TIDEPOOL_CACHESERVICE_RPC_CACHE_SERVER_H_
#define TIDEPOOL_CACHESERVICE_RPC_CACHE_SERVER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/flags.h"
#include "cacheservice/shards/pod_list.h"
#include "cacheservice/tiers/cache_options.h"
#include "security/rpc/server_security.h"

namespace tidepool {

struct CacheServerOptions {
  std::string listen = "127.0.0.1:7070";     // host:port (port 0: any free one) or unix:PATH
  int threads = 4;                           // that may wait for the disk, 1 to 64
  int64_t staging_bytes = int64_t{1} << 30;  // of values and manifests under way on all streams, at least 1 MiB
  ServerSecurityOptions security;
  std::string pod_name;  // among several; empty: one that belongs to the data directory
  PodList peers;         // where Drain copies to, this pod itself may be among them; empty: nowhere
  CacheOptions cache;
  std::string metrics_address;    // as MetricsServer::Start; empty: no metrics
  bool metrics_insecure = false;  // it may be reached from other machines, as with security.insecure
  std::vector<FlagFacts> flags;   // what GetConfig shows
};

// What Start checks before it touches the data directory. InvalidArgument naming the option.
absl::Status ValidateCacheServerOptions(const CacheServerOptions& options);

class CacheServer {
 public:
  // InvalidArgument naming the option; FailedPrecondition when the data directory is in use; Unavailable when the
  // address is.
  static absl::StatusOr<std::unique_ptr<CacheServer>> Start(const CacheServerOptions& options);
  // Shutdown, if it was not called.
  ~CacheServer();

  const std::string& address() const;   // with the port that was taken
  int port() const;                     // 0 for a Unix socket
  std::string metrics_address() const;  // with its port; empty: none
  // Health says not serving, streams get `grace` to end, what lives in memory only goes to disk.
  void Shutdown(absl::Duration grace);

 private:
  struct Impl;
  explicit CacheServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RPC_CACHE_SERVER_H_
