// Addresses that our servers listen on.
#ifndef TIDEPOOL_BASE_LISTEN_ADDRESS_H_
#define TIDEPOOL_BASE_LISTEN_ADDRESS_H_

#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace tidepool {

// A loopback address, an IPv6 one with or without brackets, or "localhost".
bool IsLoopbackHost(std::string_view host);

// host:port with port 0 to 65535, or unix:PATH. What is neither a loopback address nor a Unix socket can be reached
// from other machines: `elsewhere` says that this is allowed. InvalidArgument naming `listen` and what to give.
absl::Status CheckListenAddress(const std::string& listen, bool elsewhere);

}  // namespace tidepool

#endif  // TIDEPOOL_BASE_LISTEN_ADDRESS_H_
