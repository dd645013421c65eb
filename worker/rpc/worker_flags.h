// The flags that tidepool-worker and `tidepool serve` share.
#ifndef TIDEPOOL_WORKER_RPC_WORKER_FLAGS_H_
#define TIDEPOOL_WORKER_RPC_WORKER_FLAGS_H_

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "tracing/otlp_endpoint.h"
#include "worker/engine/engine.h"
#include "worker/rpc/policy_file.h"

namespace tidepool {

// What the flags say. InvalidArgument naming the flag, its value and the allowed ones.
absl::StatusOr<EngineOptions> EngineOptionsFromFlags();
// --policies: what the file offers, or nothing.
absl::StatusOr<NamedPolicies> PoliciesFromFlags();
std::string ModelFlag();         // --model, empty when it is not given
std::string PortFileFlag();      // --port-file
absl::Duration DrainTimeFlag();  // --drain-time, valid once EngineOptionsFromFlags is
bool ValidateConfigFlag();       // --validate-config
absl::StatusOr<std::optional<OtlpEndpoint>> OtlpEndpointFromFlags();  // --otlp-endpoint
double TraceShareFlag();           // --trace-share, valid once OtlpEndpointFromFlags is
std::string MetricsAddressFlag();  // --metrics-address, empty when there is none
std::string PageAddressFlag();     // --page-address, likewise; valid once EngineOptionsFromFlags is

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_RPC_WORKER_FLAGS_H_
