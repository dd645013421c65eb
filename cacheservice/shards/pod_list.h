// Where the pods of a cache service are: a fixed list of addresses, or all addresses of a DNS name.
#ifndef TIDEPOOL_CACHESERVICE_SHARDS_POD_LIST_H_
#define TIDEPOOL_CACHESERVICE_SHARDS_POD_LIST_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace tidepool {

inline constexpr size_t kMostPods = 64;

struct PodList {
  std::vector<std::string> addresses;  // host:port or unix:PATH; empty when they come from DNS
  // Of dns:///HOST:PORT. The certificates of its pods are for the name, whatever their addresses.
  std::string dns_host, dns_port;

  bool from_dns() const { return !dns_host.empty(); }
  // One fixed address: no sharding is needed.
  bool single() const { return addresses.size() == 1; }
};

// "a:1", "a:1,b:2" or "dns:///name:port". InvalidArgument naming `flag`, the part that is wrong and what is allowed.
absl::StatusOr<PodList> ParsePodList(const std::string& flag, const std::string& text);

// All IPv4 and IPv6 addresses of the name, each with the port, sorted; at most kMostPods. Blocks. Unavailable: the name
// does not resolve at the moment.
absl::StatusOr<std::vector<std::string>> ResolvePods(const PodList& list);

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_SHARDS_POD_LIST_H_
