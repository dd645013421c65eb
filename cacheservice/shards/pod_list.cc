#include "cacheservice/shards/pod_list.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>

#include <algorithm>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace tidepool {
namespace {

constexpr char kDnsScheme[] = "dns:///";

// host:port; the host of an IPv6 address is in brackets.
bool SplitHostPort(const std::string& text, std::string* host, std::string* port) {
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0) return false;
  *host = text.substr(0, colon);
  *port = text.substr(colon + 1);
  int number = 0;
  return absl::SimpleAtoi(*port, &number) && number >= 1 && number <= 65535;
}

}  // namespace

absl::StatusOr<PodList> ParsePodList(const std::string& flag, const std::string& text) {
  const auto wrong = [&flag](const std::string& part, const char* allowed) {
    return absl::InvalidArgumentError(absl::StrCat(flag, ": '", part, "' is not ", allowed));
  };
  PodList list;
  if (absl::StartsWith(text, kDnsScheme)) {
    if (!SplitHostPort(text.substr(sizeof(kDnsScheme) - 1), &list.dns_host, &list.dns_port) ||
        absl::StrContains(list.dns_host, ",")) {
      return wrong(text, "dns:///NAME:PORT, with port 1 to 65535");
    }
    return list;
  }
  for (const std::string& part : std::vector<std::string>(absl::StrSplit(text, ','))) {
    std::string host, port;
    const bool is_unix = absl::StartsWith(part, "unix:") && part.size() > 5;
    if (!is_unix && !SplitHostPort(part, &host, &port)) {
      return wrong(part, "host:port, with port 1 to 65535, or unix:PATH; several are separated by commas");
    }
    if (std::find(list.addresses.begin(), list.addresses.end(), part) != list.addresses.end()) {
      return absl::InvalidArgumentError(absl::StrCat(flag, ": '", part, "' is given twice"));
    }
    list.addresses.push_back(part);
  }
  if (list.addresses.size() > kMostPods) {
    return absl::InvalidArgumentError(
        absl::StrCat(flag, ": ", list.addresses.size(), " addresses, at most ", kMostPods));
  }
  return list;
}

absl::StatusOr<std::vector<std::string>> ResolvePods(const PodList& list) {
  if (!list.from_dns()) return list.addresses;
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const std::string host(absl::StripSuffix(absl::StripPrefix(list.dns_host, "["), "]"));
  if (const int error = getaddrinfo(host.c_str(), list.dns_port.c_str(), &hints, &found); error != 0) {
    return absl::UnavailableError(absl::StrCat("dns:///", list.dns_host, ": ", gai_strerror(error)));
  }
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(found, freeaddrinfo);
  std::vector<std::string> addresses;
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    char numbers[INET6_ADDRSTRLEN] = {};
    if (getnameinfo(at->ai_addr, at->ai_addrlen, numbers, sizeof(numbers), nullptr, 0, NI_NUMERICHOST) != 0) continue;
    addresses.push_back(at->ai_family == AF_INET6 ? absl::StrCat("[", numbers, "]:", list.dns_port)
                                                  : absl::StrCat(numbers, ":", list.dns_port));
  }
  std::sort(addresses.begin(), addresses.end());
  addresses.erase(std::unique(addresses.begin(), addresses.end()), addresses.end());
  if (addresses.size() > kMostPods) addresses.resize(kMostPods);
  return addresses;
}

}  // namespace tidepool
