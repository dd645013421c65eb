// Least recently used. Insert, Touch, Remove: O(1). Victim: O(1) without pins.
#ifndef TIDEPOOL_CACHESERVICE_TIERS_LRU_H_
#define TIDEPOOL_CACHESERVICE_TIERS_LRU_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "cacheservice/tiers/replacement_policy.h"

namespace tidepool {

class Lru final : public ReplacementPolicy {
 public:
  void Insert(uint32_t slot, const ChainPlace& place) override;
  void Touch(uint32_t slot) override;
  void Remove(uint32_t slot) override;
  std::optional<uint32_t> Victim(absl::FunctionRef<bool(uint32_t slot)> may_leave) override;

 private:
  static constexpr uint32_t kNone = ~uint32_t{0};
  struct Node {
    uint32_t newer = kNone;
    uint32_t older = kNone;
    bool held = false;
  };
  void PushNewest(uint32_t slot);
  void Unlink(const Node& node);

  std::vector<Node> nodes_;  // by slot
  uint32_t newest_ = kNone;
  uint32_t oldest_ = kNone;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_LRU_H_
