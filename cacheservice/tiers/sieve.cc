#include "cacheservice/tiers/sieve.h"

#include "base/check.h"

namespace tidepool {

void Sieve::Insert(uint32_t slot, const ChainPlace& /*place*/) {
  if (slot >= nodes_.size()) nodes_.resize(slot + 1);
  Node& node = nodes_[slot];
  TIDEPOOL_CHECK(!node.held);
  node = {.newer = kNone, .older = newest_, .held = true, .visited = false};
  if (newest_ != kNone) nodes_[newest_].newer = slot;
  newest_ = slot;
  if (oldest_ == kNone) oldest_ = slot;
  ++held_;
}

void Sieve::Touch(uint32_t slot) {
  TIDEPOOL_CHECK(slot < nodes_.size() && nodes_[slot].held);
  nodes_[slot].visited = true;
}

void Sieve::Remove(uint32_t slot) {
  TIDEPOOL_CHECK(slot < nodes_.size() && nodes_[slot].held);
  Node& node = nodes_[slot];
  if (hand_ == slot) hand_ = node.newer;
  (node.newer != kNone ? nodes_[node.newer].older : newest_) = node.older;
  (node.older != kNone ? nodes_[node.older].newer : oldest_) = node.newer;
  node.held = false;
  --held_;
}

std::optional<uint32_t> Sieve::Victim(absl::FunctionRef<bool(uint32_t)> may_leave) {
  // The first round clears every bit, so the second meets each slot that may leave.
  for (size_t steps = 0; steps < 2 * held_; ++steps) {
    if (hand_ == kNone) hand_ = oldest_;
    Node& node = nodes_[hand_];
    if (!node.visited && may_leave(hand_)) return hand_;
    node.visited = false;
    hand_ = node.newer;
  }
  return std::nullopt;
}

}  // namespace tidepool
