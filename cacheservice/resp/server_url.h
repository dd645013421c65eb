// Where RESP servers are and who we are to them, as one text:
//
//   redis://[[USER][:PASSWORD]@]HOST[:PORT][,HOST[:PORT]...]    plain text
//   rediss://...                                                the same over TLS
//   redis+unix://[[USER][:PASSWORD]@]/PATH/OF/SOCKET
//
// USER and PASSWORD are percent-encoded where they hold one of `:@/,%`. An IPv6 address stands in brackets. The port's
// default is 6379.
#ifndef TIDEPOOL_CACHESERVICE_RESP_SERVER_URL_H_
#define TIDEPOOL_CACHESERVICE_RESP_SERVER_URL_H_

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"

namespace tidepool {

struct RespEndpoint {
  std::string host;  // without brackets; of a Unix socket its path
  int port = 0;      // 0: a Unix socket

  std::string ToString() const;  // "host:port", "[::1]:6379", "unix:/path"
  bool IsLocal() const;          // a loopback address or a Unix socket
  friend bool operator==(const RespEndpoint&, const RespEndpoint&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const RespEndpoint& endpoint) {
    return H::combine(std::move(h), endpoint.host, endpoint.port);
  }
};

struct RespServers {
  bool tls = false;
  std::string user;      // empty: the default user
  std::string password;  // empty: no AUTH
  std::vector<RespEndpoint> endpoints;
};

// InvalidArgument saying what is wrong, never with the password in it.
absl::StatusOr<RespServers> ParseRespServers(std::string_view url);

// HOST:PORT as servers write it, also with several colons in HOST. InvalidArgument: neither.
absl::StatusOr<RespEndpoint> ParseRespEndpoint(std::string_view text);

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RESP_SERVER_URL_H_
