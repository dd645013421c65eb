// Addresses of a host, by a deadline.
#ifndef TIDEPOOL_CACHESERVICE_RESP_RESOLVE_H_
#define TIDEPOOL_CACHESERVICE_RESP_RESOLVE_H_

#include <sys/socket.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace tidepool {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t size = 0;
};

// Addresses are answered at once; names are asked of the system in a thread of its own, which is left to itself when it
// takes too long: the C library's resolver cannot be interrupted. Unavailable: no such host. DeadlineExceeded.
absl::StatusOr<std::vector<SocketAddress>> ResolveHost(const std::string& host, int port, absl::Time deadline);

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RESP_RESOLVE_H_
