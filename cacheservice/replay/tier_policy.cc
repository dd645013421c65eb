// The memory tier's policies over blocks of one value each, driven as the tier drives them: a request looks its chain
// up, then stores what it did not find.
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/check.h"
#include "cacheservice/replay/replay_policy.h"
#include "cacheservice/tiers/chain_policy.h"
#include "cacheservice/tiers/lru.h"
#include "cacheservice/tiers/replacement_policy.h"
#include "cacheservice/tiers/sieve.h"

namespace tidepool {
namespace {

// 16 ghosts take 2 KB, less than a thousandth of what 512 tokens of a small model take (SmolLM2-135M: 12 MB). The tier
// itself gives them 1/128 of its bytes, which is more.
constexpr size_t kGhostsPerBlock = 16;

uint64_t HashOf(uint32_t block) { return uint64_t{block} + 1; }  // 0 is taken

class TierPolicy final : public ReplayPolicy {
 public:
  TierPolicy(size_t blocks, std::unique_ptr<ReplacementPolicy> policy) : blocks_(blocks), policy_(std::move(policy)) {}
  bool Holds(uint32_t block) const override { return slots_.contains(block); }

  void Serve(absl::Span<const Reference> chain) override {
    if (policy_->MayRefuse()) {
      Announce(chain);
      for (size_t i = 0; i < chain.size(); ++i) Store(PlaceOf(chain, i), chain[i].block);
    } else {
      // They know no chains: the tail comes first, as for every policy that sees one block at a time.
      for (size_t i = chain.size(); i-- > 0;) Store(PlaceOf(chain, i), chain[i].block);
    }
  }

 private:
  static ChainPlace PlaceOf(absl::Span<const Reference> chain, size_t i) {
    return {HashOf(chain[i].block), i == 0 ? ChainPlace::kUnknown : HashOf(chain[i - 1].block)};
  }

  void Announce(absl::Span<const Reference> chain) {
    uint32_t new_blocks = 0;
    std::vector<ChainPlace> places;
    for (size_t i = 0; i < chain.size(); ++i) {
      places.push_back(PlaceOf(chain, i));
      new_blocks += !policy_->Remembers(places.back().block);
    }
    policy_->Refer(places, new_blocks);
  }

  void Store(const ChainPlace& place, uint32_t block) {
    if (const auto found = slots_.find(block); found != slots_.end()) return policy_->Touch(found->second);
    if (!policy_->MayRefuse() && slots_.size() == blocks_) Evict();
    const uint32_t slot = TakeSlot();
    held_[slot] = block;
    slots_[block] = slot;
    policy_->Insert(slot, place);
    if (slots_.size() > blocks_) Evict();
  }

  uint32_t TakeSlot() {
    if (free_.empty()) {
      held_.emplace_back();
      return static_cast<uint32_t>(held_.size() - 1);
    }
    const uint32_t slot = free_.back();
    free_.pop_back();
    return slot;
  }

  void Evict() {
    const std::optional<uint32_t> victim = policy_->Victim([](uint32_t) { return true; });
    TIDEPOOL_CHECK(victim.has_value());
    policy_->Remove(*victim);
    slots_.erase(held_[*victim]);
    free_.push_back(*victim);
  }

  const size_t blocks_;
  const std::unique_ptr<ReplacementPolicy> policy_;
  absl::flat_hash_map<uint32_t, uint32_t> slots_;  // by block
  std::vector<uint32_t> held_;                     // block, by slot
  std::vector<uint32_t> free_;
};

}  // namespace

std::unique_ptr<ReplayPolicy> MakeTierLru(size_t blocks) {
  return std::make_unique<TierPolicy>(blocks, std::make_unique<Lru>());
}

std::unique_ptr<ReplayPolicy> MakeTierSieve(size_t blocks) {
  return std::make_unique<TierPolicy>(blocks, std::make_unique<Sieve>());
}

std::unique_ptr<ReplayPolicy> MakeTierChain(size_t blocks) {
  return std::make_unique<TierPolicy>(blocks, std::make_unique<ChainPolicy>(kGhostsPerBlock * blocks, /*alone=*/true));
}

}  // namespace tidepool
