// Addresses that our servers listen on.
#ifndef TIDEPOOL_BASE_LISTEN_ADDRESS_H_
#define TIDEPOOL_BASE_LISTEN_ADDRESS_H_

#include <string>

#include "absl/status/status.h"

namespace tidepool {

// host:port with port 0 to 65535, or unix:PATH. Plain text is for loopback and Unix sockets: anything else needs
// `insecure`. InvalidArgument naming `listen`.
absl::Status CheckListenAddress(const std::string& listen, bool insecure);

}  // namespace tidepool

#endif  // TIDEPOOL_BASE_LISTEN_ADDRESS_H_
