// SIEVE (Zhang et al., NSDI 2024): a queue in order of insertion and a hand that walks from the oldest to the newest.
// A read sets a bit; the hand clears set bits and stops at the first clear one. One bit a read, no reordering, and a
// scan leaves again without disturbing what is read twice. Insert, Touch, Remove: O(1). Victim: amortised O(1) without
// pins.
#ifndef TIDEPOOL_CACHESERVICE_TIERS_SIEVE_H_
#define TIDEPOOL_CACHESERVICE_TIERS_SIEVE_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "cacheservice/tiers/replacement_policy.h"

namespace tidepool {

class Sieve final : public ReplacementPolicy {
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
    bool visited = false;
  };

  std::vector<Node> nodes_;  // by slot
  uint32_t newest_ = kNone;
  uint32_t oldest_ = kNone;
  uint32_t hand_ = kNone;  // where the next search begins; none: at the oldest
  size_t held_ = 0;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_SIEVE_H_
