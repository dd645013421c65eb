// The memory tier's default (docs/decisions/0011-replacement.md): the block leaves that is worth the least (ReuseModel)
// among those that no held block follows, so that a chain is given up from its tail; of equals, the furthest from its
// head. A new block worth less than all others is not kept at all.
//
// What it knows of a block outlives its values as a ghost, up to a limit, so that returns are seen that a small tier
// could not wait for. The values of a block, one for each layer, come and go by slot and count as one.
//
// A victim is the least worthy of a sample and of the best candidates of earlier samples (Psounis and Prabhakar, "A
// randomized web-cache replacement scheme", INFOCOM 2001); with eight of each the hit ratio is that of a full search.
// All operations: O(1) amortised; Victim with pins: up to O(blocks). Not thread-safe.
#ifndef TIDEPOOL_CACHESERVICE_TIERS_CHAIN_POLICY_H_
#define TIDEPOOL_CACHESERVICE_TIERS_CHAIN_POLICY_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <tuple>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "cacheservice/tiers/replacement_policy.h"
#include "cacheservice/tiers/reuse_model.h"

namespace tidepool {

class ChainPolicy final : public ReplacementPolicy {
 public:
  // What one block takes in memory beside its values, known or held.
  static constexpr size_t kBlockBytes = 112;

  // Remembers at most `most_ghosts` blocks of which no value is held, besides those that a held block follows. `alone`:
  // no other policy has blocks of the same chains, so there are no links to pass on.
  ChainPolicy(size_t most_ghosts, bool alone);

  void Insert(uint32_t slot, const ChainPlace& place) override;
  // A reference, unless it comes so soon after the last that any policy would have kept the block: the reads of one
  // request are one use.
  void Touch(uint32_t slot) override;
  // No reference: an answer reads rows of its own blocks as long as it lasts, which says nothing of requests to come.
  // It leaves after all others for a while, in which an eighth as many blocks are referenced as are held.
  void TouchRows(uint32_t slot) override;
  void Remove(uint32_t slot) override;
  std::optional<uint32_t> Victim(absl::FunctionRef<bool(uint32_t slot)> may_leave) override;
  bool MayRefuse() const override { return true; }
  bool Remembers(uint64_t block) const override { return index_.contains(block); }
  void Refer(absl::Span<const ChainPlace> chain, uint32_t new_blocks) override;
  size_t FixedBytes() const override { return sizeof(*this) + most_ghosts_ * kBlockBytes; }
  std::vector<ChainLink> TakeLinks() override;
  void Apply(const ChainLink& link) override;

  size_t held_blocks() const { return held_; }
  size_t ghosts() const { return ghosts_; }
  size_t known_blocks() const { return index_.size(); }

 private:
  static constexpr uint32_t kNone = ~uint32_t{0};

  // Held, or followed by a held block, or a ghost.
  struct Block {
    uint64_t id = ChainPlace::kUnknown;  // that: the entry is free
    uint64_t parent = ChainPlace::kUnknown;
    uint64_t last = 0;        // clock of the last reference
    uint64_t counted = 0;     // clock up to which the model has heard of the time waited
    uint64_t used_until = 0;  // clock: an answer reads its rows
    uint32_t references = 0;
    uint32_t new_blocks = 0;                // that the last request for it brought
    uint32_t depth = 0;                     // its place in the last request's chain, as far as that is known
    int32_t children = 0;                   // held blocks that follow it; links that cross may make it -1 for a while
    uint32_t first_slot = kNone;            // its values; none: it is not held
    uint32_t candidate = kNone;             // place among those that may leave
    uint32_t newer = kNone, older = kNone;  // among ghosts
    uint8_t cls = 0;                        // of the model
    bool is_ghost = false;
    bool is_linked = false;   // its parent counts it among its children
    bool is_awaited = false;  // a request asked for it and will store it
  };
  struct Slot {
    uint32_t block = kNone;
    uint32_t next = kNone, previous = kNone;  // of the same block
  };

  uint32_t Find(uint64_t id) const;
  uint32_t Add(const ChainPlace& place, uint32_t new_blocks);
  void Reference(uint32_t block, uint32_t new_blocks);
  void CountWaiting(Block& block);
  void Advance(uint64_t references);
  uint64_t BurstLength() const { return held_ / 8; }  // on the clock
  bool IsBurst(const Block& block) const { return clock_ - block.last <= BurstLength(); }

  bool IsHeld(const Block& block) const { return block.first_slot != kNone; }
  void Link(uint32_t block);
  void Unlink(uint32_t block);
  void CountChild(uint32_t parent, bool held);
  // Puts a block where its state says: among the candidates, among the ghosts, or neither.
  void Place(uint32_t block);
  void AddCandidate(uint32_t block);
  void DropCandidate(uint32_t block);
  void PushGhost(uint32_t block);
  void UnlinkGhost(uint32_t block);
  void Forget(uint32_t block);

  // Who leaves first: what no answer reads, then by rank, last reference, and the place from the end of a chain: the
  // blocks of a request are alike, and without those before it none is of use.
  using Order = std::tuple<bool, int, uint64_t, uint32_t>;
  Order OrderOf(const Block& block) const {
    return {clock_ < block.used_until, model_.Rank(block.cls, clock_ - block.last), block.last, ~block.depth};
  }
  uint32_t SlotThatMayLeave(const Block& block, absl::FunctionRef<bool(uint32_t slot)> may_leave) const;
  std::optional<uint32_t> SearchAll(absl::FunctionRef<bool(uint32_t slot)> may_leave);
  uint64_t NextRandom();

  const size_t most_ghosts_;
  const bool alone_;
  ReuseModel model_;
  absl::flat_hash_map<uint64_t, uint32_t> index_;  // id to place in blocks_
  std::vector<Block> blocks_;
  std::vector<uint32_t> free_;
  std::vector<Slot> slots_;
  std::vector<uint32_t> candidates_;  // held, and followed by no held block
  std::vector<uint32_t> shortlist_;   // the least worthy of earlier samples, and who has become a candidate since
  std::vector<ChainLink> links_;      // to blocks that are not here
  size_t held_ = 0, ghosts_ = 0;
  uint32_t newest_ghost_ = kNone, oldest_ghost_ = kNone;
  uint32_t leaving_ = kNone;  // the last victim while it is held: without one of its layers a block is of little use
  uint64_t clock_ = 0;        // references
  uint64_t learn_at_ = 0;     // clock
  uint32_t sweep_ = 0;        // the next block whose waiting is counted
  uint64_t random_ = 0x9e3779b97f4a7c15;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_CHAIN_POLICY_H_
