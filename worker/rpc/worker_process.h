// From flags to a worker that serves until SIGTERM or SIGINT: what tidepool-worker and `tidepool serve` share.
#ifndef TIDEPOOL_WORKER_RPC_WORKER_PROCESS_H_
#define TIDEPOOL_WORKER_RPC_WORKER_PROCESS_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "cacheservice/api/block_cache.h"
#include "cacheservice/api/manifest_store.h"
#include "metrics/metrics_page.h"
#include "policies/kv/kv_layout.h"
#include "security/rpc/server_security.h"
#include "worker/engine/engine.h"

namespace grpc {
class Service;
}

namespace tidepool {

// A cache that the worker uses and owns. All null: none.
struct AttachedCache {
  std::shared_ptr<void> owner;
  BlockCache* blocks = nullptr;
  ManifestStore* manifests = nullptr;
  std::vector<grpc::Service*> services;  // of the owner, served on the worker's address
  MetricsSource metrics;                 // of the owner, shown beside the worker's; null: none
};

struct WorkerProcess {
  std::string program;  // begins every message on stderr
  std::string listen;   // as WorkerServer::Start
  ServerSecurityOptions security;
  // Called once, when the model is loaded. `security` outlives the cache.
  std::function<absl::StatusOr<AttachedCache>(const KvLayout& layout, const EngineOptions& options,
                                              const ServerSecurity& security)>
      open_cache;
};

// Call it before the process has threads: they must all block the signals. Prints "listening on ADDRESS" and writes
// --port-file when it serves. Returns the exit code: 0 after a signal, 2 for what a flag got wrong, else 1; the message
// on stderr names the flag.
int RunWorker(const WorkerProcess& process);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_RPC_WORKER_PROCESS_H_
