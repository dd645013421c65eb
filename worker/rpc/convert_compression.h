// Compression parameters of the wire, as the engine has them.
#ifndef TIDEPOOL_WORKER_RPC_CONVERT_COMPRESSION_H_
#define TIDEPOOL_WORKER_RPC_CONVERT_COMPRESSION_H_

#include "absl/status/statusor.h"
#include "policies/retain/compression_spec.h"
#include "tidepool/v1/generation.pb.h"

namespace tidepool {

// An empty preset: the session's own (for_session) or full. InvalidArgument naming the field where a value is not
// known; ValidateCompression has not been asked.
absl::StatusOr<CompressionSpec> CompressionFrom(const v1::CompressionParams& params, bool for_session);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_RPC_CONVERT_COMPRESSION_H_
