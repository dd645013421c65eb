// Which server answers for which hash slots of a cluster, as CLUSTER SLOTS and redirections tell. Plain values.
#ifndef TIDEPOOL_CACHESERVICE_RESP_SLOT_MAP_H_
#define TIDEPOOL_CACHESERVICE_RESP_SLOT_MAP_H_

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "cacheservice/resp/reply.h"
#include "cacheservice/resp/server_url.h"

namespace tidepool {

class SlotMap {
 public:
  // All slots belong to one server that is no cluster.
  static SlotMap Single(const RespEndpoint& endpoint);
  // The reply to CLUSTER SLOTS; masters only, replicas take over as masters. A server that does not know its own host
  // means `asked`. DataLoss: it is not such a reply. Unavailable: no slot is assigned.
  static absl::StatusOr<SlotMap> Parse(const RespReply& reply, const RespEndpoint& asked);

  // Null: nobody's at the moment.
  const RespEndpoint* Owner(uint16_t slot) const;
  void SetOwner(uint16_t slot, const RespEndpoint& endpoint);

  const std::vector<RespEndpoint>& endpoints() const { return endpoints_; }
  bool is_cluster() const { return is_cluster_; }

 private:
  SlotMap();
  uint16_t IndexOf(const RespEndpoint& endpoint);

  bool is_cluster_ = false;
  std::vector<RespEndpoint> endpoints_;
  std::vector<uint16_t> owners_;  // [kHashSlots], index into endpoints_ or kNobody
};

// "MOVED 3999 127.0.0.1:6381" and "ASK 3999 127.0.0.1:6381".
struct Redirection {
  bool ask = false;  // for this command only
  uint16_t slot = 0;
  RespEndpoint endpoint;
};
// nullopt: the reply is no redirection, or not one that can be followed. An empty host means `asked`'s.
std::optional<Redirection> RedirectionOf(const RespReply& reply, const RespEndpoint& asked);

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RESP_SLOT_MAP_H_
