#include "cacheservice/tiers/lru.h"

#include "base/check.h"

namespace tidepool {

void Lru::PushNewest(uint32_t slot) {
  nodes_[slot] = {.newer = kNone, .older = newest_, .held = true};
  (newest_ != kNone ? nodes_[newest_].newer : oldest_) = slot;
  newest_ = slot;
}

void Lru::Unlink(const Node& node) {
  (node.newer != kNone ? nodes_[node.newer].older : newest_) = node.older;
  (node.older != kNone ? nodes_[node.older].newer : oldest_) = node.newer;
}

void Lru::Insert(uint32_t slot, const ChainPlace& /*place*/) {
  if (slot >= nodes_.size()) nodes_.resize(slot + 1);
  TIDEPOOL_CHECK(!nodes_[slot].held);
  PushNewest(slot);
}

void Lru::Touch(uint32_t slot) {
  TIDEPOOL_CHECK(slot < nodes_.size() && nodes_[slot].held);
  Unlink(nodes_[slot]);
  PushNewest(slot);
}

void Lru::Remove(uint32_t slot) {
  TIDEPOOL_CHECK(slot < nodes_.size() && nodes_[slot].held);
  Unlink(nodes_[slot]);
  nodes_[slot].held = false;
}

std::optional<uint32_t> Lru::Victim(absl::FunctionRef<bool(uint32_t)> may_leave) {
  for (uint32_t slot = oldest_; slot != kNone; slot = nodes_[slot].newer) {
    if (may_leave(slot)) return slot;
  }
  return std::nullopt;
}

}  // namespace tidepool
