// Least frequently used: counts references while a block is held; among equals the least recently used leaves.
#include <map>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "cacheservice/replay/replay_policy.h"

namespace tidepool {
namespace {

class Lfu final : public BlockwisePolicy {
 public:
  explicit Lfu(size_t blocks) : blocks_(blocks) {}
  bool Holds(uint32_t block) const override { return held_.contains(block); }

 private:
  using Rank = std::pair<uint64_t, uint64_t>;  // references, time of the last one

  void Access(const Reference& reference) override {
    const auto found = held_.find(reference.block);
    Rank rank(1, ++now_);
    if (found != held_.end()) {
      rank.first = found->second.first + 1;
      ranked_.erase(found->second);
    } else if (held_.size() == blocks_) {
      held_.erase(ranked_.begin()->second);
      ranked_.erase(ranked_.begin());
    }
    held_[reference.block] = rank;
    ranked_.emplace(rank, reference.block);
  }

  const size_t blocks_;
  uint64_t now_ = 0;
  absl::flat_hash_map<uint32_t, Rank> held_;
  std::map<Rank, uint32_t> ranked_;
};

}  // namespace

std::unique_ptr<ReplayPolicy> MakeLfu(size_t blocks) { return std::make_unique<Lfu>(blocks); }

}  // namespace tidepool
