#include "cacheservice/tiers/chain_policy.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace tidepool {
namespace {

constexpr size_t kSample = 8;          // candidates drawn for each victim
constexpr size_t kShortlist = 8;       // of them and of earlier ones, remembered for the next
constexpr size_t kMostNewcomers = 64;  // candidates remembered while nothing has to leave
// Blocks whose waiting is counted at each reference: the model hears of everything within a quarter of the time in
// which as many blocks as are known are referenced.
constexpr size_t kSweep = 4;
// One of 64 classes is learned after so many references, or after 1/256 of the blocks known, so that a round of
// learning takes about as long as a sweep.
constexpr uint64_t kLearnEvery = 64;
constexpr uint64_t kLearnShare = 256;

}  // namespace

ChainPolicy::ChainPolicy(size_t most_ghosts, bool alone) : most_ghosts_(most_ghosts), alone_(alone) {
  static_assert(sizeof(Block) + 2 * (sizeof(uint64_t) + sizeof(uint32_t) + 1) + sizeof(uint32_t) <= kBlockBytes);
}

// --- What is known -----------------------------------------------------------------------------------------------

uint32_t ChainPolicy::Find(uint64_t id) const {
  const auto found = index_.find(id);
  return found == index_.end() ? kNone : found->second;
}

uint32_t ChainPolicy::Add(const ChainPlace& place, uint32_t new_blocks) {
  uint32_t at = static_cast<uint32_t>(blocks_.size());
  if (free_.empty()) {
    blocks_.emplace_back();
  } else {
    at = free_.back();
    free_.pop_back();
  }
  index_[place.block] = at;
  Block& block = blocks_[at];
  block.id = place.block;
  if (place.parent != place.block) block.parent = place.parent;
  block.last = block.counted = clock_;
  block.references = 1;
  block.new_blocks = new_blocks;
  block.cls = ReuseModel::ClassOf(1, new_blocks);
  return at;
}

void ChainPolicy::CountWaiting(Block& block) {
  model_.Waited(block.cls, block.counted - block.last, clock_ - block.last);
  block.counted = clock_;
}

void ChainPolicy::Reference(uint32_t at, uint32_t new_blocks) {
  Block& block = blocks_[at];
  CountWaiting(block);
  model_.Returned(block.cls, clock_ - block.last);
  if (leaving_ == at) leaving_ = kNone;
  block.last = clock_;
  if (block.references < kNone) ++block.references;
  block.new_blocks = new_blocks;
  block.cls = ReuseModel::ClassOf(block.references, new_blocks);
}

void ChainPolicy::Advance(uint64_t references) {
  clock_ += references;
  for (size_t left = std::min<size_t>(blocks_.size(), kSweep * references); left > 0; --left) {
    if (sweep_ >= blocks_.size()) sweep_ = 0;
    Block& block = blocks_[sweep_++];
    if (block.id != ChainPlace::kUnknown) CountWaiting(block);
  }
  for (; learn_at_ <= clock_; learn_at_ += std::max<uint64_t>(kLearnEvery, blocks_.size() / kLearnShare))
    model_.Learn();
}

void ChainPolicy::Refer(absl::Span<const ChainPlace> chain, uint32_t new_blocks) {
  Advance(chain.size());
  for (uint32_t depth = 0; depth < chain.size(); ++depth) {
    const ChainPlace& place = chain[depth];
    uint32_t at = Find(place.block);
    if (at == kNone) {
      at = Add(place, new_blocks);
    } else {
      Reference(at, new_blocks);
      if (blocks_[at].parent != place.parent && place.parent != place.block) {
        Unlink(at);
        blocks_[at].parent = place.parent;
      }
      if (blocks_[at].is_ghost) UnlinkGhost(at);  // to become the newest
    }
    blocks_[at].depth = depth;
    blocks_[at].is_awaited = !IsHeld(blocks_[at]);
    if (IsHeld(blocks_[at])) Link(at);
    Place(at);
  }
}

// --- What is held --------------------------------------------------------------------------------------------------

void ChainPolicy::Insert(uint32_t slot, const ChainPlace& place) {
  if (slot >= slots_.size()) slots_.resize(slot + 1);
  TIDEPOOL_CHECK(slots_[slot].block == kNone && place.block != ChainPlace::kUnknown);
  uint32_t at = Find(place.block);
  if (at == kNone) {
    Advance(1);
    at = Add(place, /*new_blocks=*/1);
  } else if (!blocks_[at].is_awaited && !IsBurst(blocks_[at])) {
    Advance(1);
    Reference(at, blocks_[at].new_blocks);
  }
  Block& block = blocks_[at];
  if (block.parent == ChainPlace::kUnknown && place.parent != place.block) block.parent = place.parent;
  slots_[slot] = {.block = at, .next = block.first_slot, .previous = kNone};
  if (block.first_slot != kNone) {
    slots_[block.first_slot].previous = slot;
  } else {
    ++held_;
  }
  block.first_slot = slot;
  block.is_awaited = false;
  Link(at);
  Place(at);
}

void ChainPolicy::Touch(uint32_t slot) {
  TIDEPOOL_CHECK(slot < slots_.size() && slots_[slot].block != kNone);
  const uint32_t at = slots_[slot].block;
  if (IsBurst(blocks_[at])) return;
  Advance(1);
  Reference(at, blocks_[at].new_blocks);
}

void ChainPolicy::TouchRows(uint32_t slot) {
  TIDEPOOL_CHECK(slot < slots_.size() && slots_[slot].block != kNone);
  const uint32_t at = slots_[slot].block;
  blocks_[at].used_until = clock_ + BurstLength() + 1;
  if (leaving_ == at) leaving_ = kNone;
}

void ChainPolicy::Remove(uint32_t slot) {
  TIDEPOOL_CHECK(slot < slots_.size() && slots_[slot].block != kNone);
  const Slot removed = std::exchange(slots_[slot], Slot{});
  Block& block = blocks_[removed.block];
  (removed.previous != kNone ? slots_[removed.previous].next : block.first_slot) = removed.next;
  if (removed.next != kNone) slots_[removed.next].previous = removed.previous;
  if (IsHeld(block)) return;
  if (leaving_ == removed.block) leaving_ = kNone;
  --held_;
  Unlink(removed.block);
  Place(removed.block);
}

void ChainPolicy::Link(uint32_t at) {
  if (blocks_[at].is_linked || blocks_[at].parent == ChainPlace::kUnknown) return;
  blocks_[at].is_linked = true;
  const uint64_t id = blocks_[at].parent;
  uint32_t parent = Find(id);
  if (parent == kNone && alone_) parent = Add({.block = id}, /*new_blocks=*/1);  // it was forgotten
  if (parent != kNone) {
    CountChild(parent, true);
  } else {
    links_.push_back({.parent = id, .held = true});
  }
}

void ChainPolicy::Unlink(uint32_t at) {
  Block& block = blocks_[at];
  if (!block.is_linked) return;
  block.is_linked = false;
  const uint32_t parent = Find(block.parent);
  if (parent != kNone) {
    CountChild(parent, false);
  } else {
    links_.push_back({.parent = block.parent, .held = false});
  }
}

void ChainPolicy::CountChild(uint32_t parent, bool held) {
  blocks_[parent].children += held ? 1 : -1;
  Place(parent);
}

std::vector<ChainLink> ChainPolicy::TakeLinks() { return std::exchange(links_, {}); }

void ChainPolicy::Apply(const ChainLink& link) {
  const uint32_t parent = Find(link.parent);
  if (parent != kNone) CountChild(parent, link.held);
}

void ChainPolicy::Place(uint32_t at) {
  const Block& block = blocks_[at];
  const bool is_leaf = block.children <= 0;
  const bool is_candidate = IsHeld(block) && is_leaf, is_ghost = !IsHeld(block) && is_leaf;
  if (is_candidate != (block.candidate != kNone)) is_candidate ? AddCandidate(at) : DropCandidate(at);
  if (is_ghost != block.is_ghost) is_ghost ? PushGhost(at) : UnlinkGhost(at);
}

void ChainPolicy::AddCandidate(uint32_t at) {
  blocks_[at].candidate = static_cast<uint32_t>(candidates_.size());
  candidates_.push_back(at);
  if (shortlist_.size() == kMostNewcomers) shortlist_.erase(shortlist_.begin());
  shortlist_.push_back(at);
}

void ChainPolicy::DropCandidate(uint32_t at) {
  const uint32_t place = std::exchange(blocks_[at].candidate, kNone);
  candidates_[place] = candidates_.back();
  candidates_.pop_back();
  if (place < candidates_.size()) blocks_[candidates_[place]].candidate = place;
}

void ChainPolicy::PushGhost(uint32_t at) {
  Block& block = blocks_[at];
  block.is_ghost = true;
  block.older = newest_ghost_;
  block.newer = kNone;
  (newest_ghost_ != kNone ? blocks_[newest_ghost_].newer : oldest_ghost_) = at;
  newest_ghost_ = at;
  if (++ghosts_ > most_ghosts_) Forget(oldest_ghost_);
}

void ChainPolicy::UnlinkGhost(uint32_t at) {
  Block& block = blocks_[at];
  (block.newer != kNone ? blocks_[block.newer].older : newest_ghost_) = block.older;
  (block.older != kNone ? blocks_[block.older].newer : oldest_ghost_) = block.newer;
  block.is_ghost = false;
  --ghosts_;
}

void ChainPolicy::Forget(uint32_t at) {
  CountWaiting(blocks_[at]);
  UnlinkGhost(at);
  index_.erase(blocks_[at].id);
  blocks_[at] = Block{};
  free_.push_back(at);
}

// --- What leaves -----------------------------------------------------------------------------------------------------

uint32_t ChainPolicy::SlotThatMayLeave(const Block& block, absl::FunctionRef<bool(uint32_t)> may_leave) const {
  uint32_t slot = block.first_slot;
  while (slot != kNone && !may_leave(slot)) slot = slots_[slot].next;
  return slot;
}

uint64_t ChainPolicy::NextRandom() {  // xorshift64 (Marsaglia, 2003)
  random_ ^= random_ << 13;
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  return random_;
}

std::optional<uint32_t> ChainPolicy::Victim(absl::FunctionRef<bool(uint32_t)> may_leave) {
  if (leaving_ != kNone && blocks_[leaving_].candidate != kNone) {
    const uint32_t slot = SlotThatMayLeave(blocks_[leaving_], may_leave);
    if (slot != kNone) return slot;
  }
  for (size_t i = 0; i < kSample && !candidates_.empty(); ++i) {
    shortlist_.push_back(candidates_[NextRandom() % candidates_.size()]);
  }
  std::vector<std::pair<Order, uint32_t>> ranked;  // of blocks
  for (const uint32_t at : shortlist_) {
    if (blocks_[at].candidate != kNone) ranked.emplace_back(OrderOf(blocks_[at]), at);
  }
  std::sort(ranked.begin(), ranked.end());
  ranked.erase(std::unique(ranked.begin(), ranked.end()), ranked.end());
  shortlist_.clear();
  uint32_t victim = kNone;
  for (const auto& [order, at] : ranked) {
    if (shortlist_.size() == kShortlist) break;
    const uint32_t slot = SlotThatMayLeave(blocks_[at], may_leave);
    if (slot == kNone) continue;
    if (victim == kNone) {
      victim = slot;
      leaving_ = at;
    } else {
      shortlist_.push_back(at);
    }
  }
  if (victim != kNone) return victim;
  return SearchAll(may_leave);
}

std::optional<uint32_t> ChainPolicy::SearchAll(absl::FunctionRef<bool(uint32_t)> may_leave) {
  // Leaves first; where what is pinned follows everything else, the rest.
  for (const bool leaves : {true, false}) {
    uint32_t victim = kNone;
    Order least;
    for (uint32_t at = 0; at < blocks_.size(); ++at) {
      const Block& block = blocks_[at];
      if (!IsHeld(block) || leaves != (block.children <= 0)) continue;
      const Order order = OrderOf(block);
      if (victim != kNone && order >= least) continue;
      const uint32_t slot = SlotThatMayLeave(block, may_leave);
      if (slot == kNone) continue;
      victim = slot;
      least = order;
    }
    if (victim != kNone) return victim;
  }
  return std::nullopt;
}

}  // namespace tidepool
