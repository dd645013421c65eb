// A worker's engine behind gRPC: Generation, health and reflection.
#ifndef TIDEPOOL_WORKER_RPC_WORKER_SERVER_H_
#define TIDEPOOL_WORKER_RPC_WORKER_SERVER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/engine/engine.h"

namespace grpc {
class Service;
}

namespace tidepool {

class NamedPolicies;
class RequestTracer;   // worker/rpc/request_tracer.h
class ServerSecurity;  // security/rpc/server_security.h

class WorkerServer {
 public:
  // Listens on host:port (port 0: any free one) or unix:PATH, which is what `security` was opened for. `more` are
  // served on the same address and outlive this. policies: offered beside the presets, copied. tracer: outlives this;
  // null: nothing is recorded. InvalidArgument or Unavailable naming `listen`.
  static absl::StatusOr<std::unique_ptr<WorkerServer>> Start(const std::string& listen,
                                                             std::shared_ptr<const ServerSecurity> security,
                                                             Engine* engine,
                                                             const std::vector<grpc::Service*>& more = {},
                                                             const NamedPolicies* policies = nullptr,
                                                             const RequestTracer* tracer = nullptr);
  ~WorkerServer();

  const std::string& address() const;  // with the port that was taken
  int port() const;                    // 0 for a Unix socket
  // Health says not serving, and new answers are refused; requests under way get `grace` to end, then they are
  // cancelled.
  void Shutdown(absl::Duration grace);

 private:
  struct Impl;
  explicit WorkerServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_RPC_WORKER_SERVER_H_
