// The flags by which a service of ours is secured: --access-file, --tls-require-client, --insecure, and of
// channel_flags.cc --tls-cert, --tls-key and --tls-ca.
#ifndef TIDEPOOL_SECURITY_RPC_SERVER_FLAGS_H_
#define TIDEPOOL_SECURITY_RPC_SERVER_FLAGS_H_

#include "security/rpc/server_security.h"

namespace tidepool {

ServerSecurityOptions ServerSecurityFromFlags();

}  // namespace tidepool

#endif  // TIDEPOOL_SECURITY_RPC_SERVER_FLAGS_H_
