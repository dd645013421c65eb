// S3-FIFO (Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023, algorithm 1): a small queue that
// filters what is referenced once, a main queue with two-bit counters, and a queue of what the small one has dropped.
#include <algorithm>
#include <deque>
#include <list>

#include "absl/container/flat_hash_map.h"
#include "cacheservice/replay/replay_policy.h"

namespace tidepool {
namespace {

constexpr uint8_t kMostReads = 3;  // two bits

class S3Fifo final : public BlockwisePolicy {
 public:
  // A tenth for the small queue, and as many ghosts as the main queue holds: the paper's sizes.
  explicit S3Fifo(size_t blocks) : small_blocks_(std::max<size_t>(1, blocks / 10)), blocks_(blocks) {}
  bool Holds(uint32_t block) const override { return reads_.contains(block); }

 private:
  void Access(const Reference& reference) override {
    const uint32_t block = reference.block;
    if (const auto found = reads_.find(block); found != reads_.end()) {
      found->second = std::min<uint8_t>(kMostReads, found->second + 1);
      return;
    }
    while (reads_.size() >= blocks_) Evict();
    const auto ghost = ghosts_.find(block);
    if (ghost != ghosts_.end()) {
      ghost_queue_.erase(ghost->second);
      ghosts_.erase(ghost);
      main_.push_back(block);
    } else {
      small_.push_back(block);
    }
    reads_[block] = 0;
  }

  void Evict() { small_.size() >= small_blocks_ || main_.empty() ? EvictSmall() : EvictMain(); }

  void EvictSmall() {
    while (!small_.empty()) {
      const uint32_t block = small_.front();
      small_.pop_front();
      uint8_t& reads = reads_[block];
      if (reads > 0) {
        reads = 0;
        main_.push_back(block);
        if (main_.size() > blocks_ - small_blocks_) return EvictMain();
        continue;
      }
      reads_.erase(block);
      Remember(block);
      return;
    }
  }

  void EvictMain() {
    while (!main_.empty()) {
      const uint32_t block = main_.front();
      main_.pop_front();
      uint8_t& reads = reads_[block];
      if (reads == 0) {
        reads_.erase(block);
        return;
      }
      --reads;
      main_.push_back(block);
    }
  }

  void Remember(uint32_t block) {
    ghosts_[block] = ghost_queue_.insert(ghost_queue_.end(), block);
    if (ghost_queue_.size() <= blocks_ - small_blocks_) return;
    ghosts_.erase(ghost_queue_.front());
    ghost_queue_.pop_front();
  }

  const size_t small_blocks_;
  const size_t blocks_;
  absl::flat_hash_map<uint32_t, uint8_t> reads_;  // of what is held
  std::deque<uint32_t> small_, main_;             // oldest first
  std::list<uint32_t> ghost_queue_;               // oldest first
  absl::flat_hash_map<uint32_t, std::list<uint32_t>::iterator> ghosts_;
};

}  // namespace

std::unique_ptr<ReplayPolicy> MakeS3Fifo(size_t blocks) { return std::make_unique<S3Fifo>(blocks); }

}  // namespace tidepool
