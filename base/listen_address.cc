#include "base/listen_address.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace tidepool {

bool IsLoopbackHost(std::string_view host) {
  // 127.example.com is a name like any other.
  return host == "localhost" || host == "[::1]" || host == "::1" ||
         (host.starts_with("127.") && host.find_first_not_of("0123456789.") == std::string_view::npos);
}

absl::Status CheckListenAddress(const std::string& listen, bool elsewhere) {
  if (absl::StartsWith(listen, "unix:")) {
    if (listen.size() > 5) return absl::OkStatus();
    return absl::InvalidArgumentError("listen: unix: needs a path");
  }
  const size_t colon = listen.rfind(':');
  int port = -1;
  const bool digits = colon != std::string::npos && colon > 0 && colon + 1 < listen.size() &&
                      std::all_of(listen.begin() + static_cast<int64_t>(colon) + 1, listen.end(),
                                  [](char c) { return c >= '0' && c <= '9'; });
  if (!digits || !absl::SimpleAtoi(listen.substr(colon + 1), &port) || port > 65'535) {
    return absl::InvalidArgumentError(
        absl::StrCat("listen: '", listen, "' is not host:port with a port of 0 to 65535, nor unix:PATH"));
  }
  if (IsLoopbackHost(std::string_view(listen).substr(0, colon)) || elsewhere) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "listen: ", listen,
      " is not a loopback address or Unix socket, so TLS and knowing who calls are needed: give "
      "--tls-cert and --tls-key with --access-file, or with --tls-ca and --tls-require-client; or --insecure"));
}

}  // namespace tidepool
