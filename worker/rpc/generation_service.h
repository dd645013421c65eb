// Generation over an engine. Callback API: nothing here waits, and a slow reader holds up only its own stream.
#ifndef TIDEPOOL_WORKER_RPC_GENERATION_SERVICE_H_
#define TIDEPOOL_WORKER_RPC_GENERATION_SERVICE_H_

#include <grpcpp/grpcpp.h>
#include <grpcpp/impl/codegen/service_type.h>

#include <memory>

#include "worker/engine/engine.h"
#include "worker/rpc/policy_file.h"

namespace tidepool {

// `engine` outlives the service. policies: offered beside the presets.
std::unique_ptr<grpc::Service> MakeGenerationService(Engine* engine, NamedPolicies policies);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_RPC_GENERATION_SERVICE_H_
