// First in, first out.
#include <deque>

#include "absl/container/flat_hash_set.h"
#include "cacheservice/replay/replay_policy.h"

namespace tidepool {
namespace {

class Fifo final : public BlockwisePolicy {
 public:
  explicit Fifo(size_t blocks) : blocks_(blocks) {}
  bool Holds(uint32_t block) const override { return held_.contains(block); }

 private:
  void Access(const Reference& reference) override {
    if (!held_.insert(reference.block).second) return;
    queue_.push_back(reference.block);
    if (queue_.size() <= blocks_) return;
    held_.erase(queue_.front());
    queue_.pop_front();
  }

  const size_t blocks_;
  absl::flat_hash_set<uint32_t> held_;
  std::deque<uint32_t> queue_;
};

}  // namespace

std::unique_ptr<ReplayPolicy> MakeFifo(size_t blocks) { return std::make_unique<Fifo>(blocks); }

}  // namespace tidepool
