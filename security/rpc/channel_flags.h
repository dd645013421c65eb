// The flags, and the environment variables in their place, by which a process of ours talks to a service: --tls-ca
// (TIDEPOOL_TLS_CA), --tls-cert, --tls-key, --tls-server-name, --token-file, and TIDEPOOL_TOKEN for the token itself.
#ifndef TIDEPOOL_SECURITY_RPC_CHANNEL_FLAGS_H_
#define TIDEPOOL_SECURITY_RPC_CHANNEL_FLAGS_H_

#include "security/rpc/channel_security.h"

namespace tidepool {

// A flag counts before its variable.
ChannelSecurityOptions ChannelSecurityFromFlags();

}  // namespace tidepool

#endif  // TIDEPOOL_SECURITY_RPC_CHANNEL_FLAGS_H_
