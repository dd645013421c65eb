// Generation over an engine. Callback API: nothing here waits, and a slow reader holds up only its own stream.
#ifndef TIDEPOOL_WORKER_RPC_GENERATION_SERVICE_H_
#define TIDEPOOL_WORKER_RPC_GENERATION_SERVICE_H_

#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/service_type.h>

#include <memory>

#include "security/rpc/server_security.h"
#include "worker/engine/engine.h"
#include "worker/rpc/policy_file.h"

namespace tidepool {

class OpenStreams;    // worker/rpc/open_streams.h
class RequestTracer;  // worker/rpc/request_tracer.h

// `engine` and `open`, the answers that it streams, outlive the service. security: of the port that it is served on;
// its access file's rates bound what each tenant asks for. policies: offered beside the presets. tracer: outlives the
// service; null: nothing is recorded.
std::unique_ptr<grpc::Service> MakeGenerationService(Engine* engine, OpenStreams* open,
                                                     std::shared_ptr<const ServerSecurity> security,
                                                     NamedPolicies policies, const RequestTracer* tracer);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_RPC_GENERATION_SERVICE_H_
