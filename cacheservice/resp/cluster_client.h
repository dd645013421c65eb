// Commands to a Redis Cluster, or to one server, that speaks RESP (Redis, Valkey, Kvrocks): each goes to the master of
// its hash slot, all of a call together; redirections are followed, the topology is read anew when it has changed, a
// server that fails is left alone for a moment while a replica may take over. All waits end at the call's deadline.
// Commands may be sent twice, so they must be idempotent. One thread at a time; connections are made when they are
// needed and kept.
#ifndef TIDEPOOL_CACHESERVICE_RESP_CLUSTER_CLIENT_H_
#define TIDEPOOL_CACHESERVICE_RESP_CLUSTER_CLIENT_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "base/circuit_breaker.h"
#include "cacheservice/resp/connection.h"
#include "cacheservice/resp/reply.h"
#include "cacheservice/resp/server_url.h"
#include "cacheservice/resp/slot_map.h"

namespace tidepool {

struct ClusterClientOptions {
  std::vector<RespEndpoint> seeds;  // asked for the topology; one of them at least
  RespLogin login;
  absl::Duration connect_timeout = absl::Milliseconds(500);
  int most_attempts = 6;  // of one command, redirections included
  // A server that failed is not asked again for so long, doubling.
  absl::Duration first_node_pause = absl::Milliseconds(100);
  absl::Duration longest_node_pause = absl::Seconds(5);
};

struct ClusterClientStats {
  uint64_t redirections = 0;  // MOVED and ASK followed
  uint64_t refreshes = 0;     // topologies read
  uint64_t connects = 0;
};

class ClusterClient {
 public:
  explicit ClusterClient(const ClusterClientOptions& options);
  ~ClusterClient();
  ClusterClient(const ClusterClient&) = delete;
  ClusterClient& operator=(const ClusterClient&) = delete;

  struct Request {
    uint16_t slot;  // of every key of the command
    // Their bytes are the caller's until Run returns.
    std::vector<std::string_view> arguments;
  };
  // One result for each request, in order: the reply, errors that are no matter of routing included (wrong type, out of
  // memory); or Unavailable, DeadlineExceeded, DataLoss, ResourceExhausted as RespConnection::status, PermissionDenied:
  // the login is refused.
  std::vector<absl::StatusOr<RespReply>> Run(absl::Span<const Request> requests, absl::Time deadline);

  // Some server of a cluster has answered and not failed since: those who got nothing asked for slots of others.
  bool PartlyWorks() const;

  const ClusterClientStats& stats() const { return stats_; }

 private:
  struct Node;
  struct Call;
  using Places = std::vector<size_t>;  // indices of requests

  absl::Status EnsureTopology(absl::Time deadline);
  absl::StatusOr<SlotMap> AskForTopology(const RespEndpoint& endpoint, absl::Time deadline);
  absl::StatusOr<RespConnection*> ConnectionTo(const RespEndpoint& endpoint, absl::Time deadline);
  Node& NodeOf(const RespEndpoint& endpoint);
  // What an exchange with a server, or connecting to it, says about it.
  void Judge(const RespEndpoint& endpoint, const absl::Status& status);
  void ForgetStrangers();

  absl::flat_hash_map<RespEndpoint, Places> Route(Call* call);
  void Send(Call* call, const absl::flat_hash_map<RespEndpoint, Places>& routes);
  void Take(Call* call, const RespEndpoint& from, size_t place, RespReply reply);
  void Retry(Call* call, size_t place, const absl::Status& why);

  const ClusterClientOptions options_;
  std::optional<SlotMap> map_;
  bool stale_ = true;  // the map should be read anew
  absl::Time refreshed_ = absl::InfinitePast();
  size_t next_seed_ = 0;
  absl::flat_hash_map<RespEndpoint, std::unique_ptr<Node>> nodes_;
  ClusterClientStats stats_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RESP_CLUSTER_CLIENT_H_
