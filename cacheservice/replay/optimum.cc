// The offline optimum (Belady, IBM Systems Journal 1966) with bypass: of what is held and what has just come, that goes
// whose next reference is farthest. Within a request the tail is farther than the head, so prefixes stay whole.
#include <map>

#include "absl/container/flat_hash_map.h"
#include "cacheservice/replay/replay_policy.h"

namespace tidepool {
namespace {

class Optimum final : public BlockwisePolicy {
 public:
  explicit Optimum(size_t blocks) : blocks_(blocks) {}
  bool Holds(uint32_t block) const override { return held_.contains(block); }

 private:
  void Access(const Reference& reference) override {
    const auto found = held_.find(reference.block);
    if (found != held_.end()) {
      by_next_use_.erase(found->second);
      held_.erase(found);
    }
    if (reference.next_use == Reference::kNever) return;
    if (held_.size() == blocks_) {
      const auto farthest = std::prev(by_next_use_.end());
      if (farthest->first < reference.next_use) return;
      held_.erase(farthest->second);
      by_next_use_.erase(farthest);
    }
    held_[reference.block] = reference.next_use;
    by_next_use_[reference.next_use] = reference.block;
  }

  const size_t blocks_;
  absl::flat_hash_map<uint32_t, uint64_t> held_;  // to the next use
  std::map<uint64_t, uint32_t> by_next_use_;
};

}  // namespace

std::unique_ptr<ReplayPolicy> MakeOptimum(size_t blocks) { return std::make_unique<Optimum>(blocks); }

}  // namespace tidepool
