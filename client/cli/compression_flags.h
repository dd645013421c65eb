// Compression and recall flags of the commands that generate.
#ifndef TIDEPOOL_CLIENT_CLI_COMPRESSION_FLAGS_H_
#define TIDEPOOL_CLIENT_CLI_COMPRESSION_FLAGS_H_

#include "absl/status/status.h"
#include "tidepool/v1/generation.pb.h"

namespace tidepool::cli {

// InvalidArgument naming the flag. Ranges are the worker's to check.
absl::Status ReadCompressionFlags(v1::CompressionParams& compression);

}  // namespace tidepool::cli

#endif  // TIDEPOOL_CLIENT_CLI_COMPRESSION_FLAGS_H_
