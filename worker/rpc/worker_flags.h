// The flags that tidepool-worker and `tidepool serve` share.
#ifndef TIDEPOOL_WORKER_RPC_WORKER_FLAGS_H_
#define TIDEPOOL_WORKER_RPC_WORKER_FLAGS_H_

#include <string>

#include "absl/status/statusor.h"
#include "worker/engine/engine.h"

namespace tidepool {

// What the flags say. InvalidArgument naming the flag, its value and the allowed ones.
absl::StatusOr<EngineOptions> EngineOptionsFromFlags();
std::string ModelFlag();     // --model, empty when it is not given
std::string PortFileFlag();  // --port_file

// Writes the port, in decimal and a newline, so that a reader never sees half of it.
absl::Status WritePortFile(const std::string& path, int port);

// Flags may be written with - or _ between their words: rewrites argv for absl::ParseCommandLine.
void AcceptDashes(int argc, char** argv);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_RPC_WORKER_FLAGS_H_
