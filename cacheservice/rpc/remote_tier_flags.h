// The flags of the remote tier, and the options that they say.
#ifndef TIDEPOOL_CACHESERVICE_RPC_REMOTE_TIER_FLAGS_H_
#define TIDEPOOL_CACHESERVICE_RPC_REMOTE_TIER_FLAGS_H_

#include "absl/status/statusor.h"
#include "cacheservice/tiers/remote_options.h"

namespace tidepool {

// Reads the password's file or the environment, too. InvalidArgument naming the flag.
absl::StatusOr<RemoteTierOptions> RemoteTierFromFlags();

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RPC_REMOTE_TIER_FLAGS_H_
