// Which of the held values leaves next. Values are slots, small integers that the caller hands out. A policy may also
// know which block a value is a part of, which block that follows, and what requests have looked for; it knows nothing
// of bytes or time, so that a trace can be replayed against any policy. Not thread-safe.
//
//   policy.Insert(slot, place);                                // new
//   policy.Touch(slot);                                        // read
//   while (full) { auto victim = policy.Victim(may_leave); policy.Remove(*victim); }
#ifndef TIDEPOOL_CACHESERVICE_TIERS_REPLACEMENT_POLICY_H_
#define TIDEPOOL_CACHESERVICE_TIERS_REPLACEMENT_POLICY_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"

namespace tidepool {

// A block's place in its chain, by hashes of content addresses. A block is of use to a request only together with all
// that come before it.
struct ChainPlace {
  static constexpr uint64_t kUnknown = 0;
  uint64_t block = kUnknown;
  uint64_t parent = kUnknown;  // the block before; of the first block, or when nobody has said: kUnknown
};

// The block that follows `parent` has come to be held, or has left.
struct ChainLink {
  uint64_t parent;
  bool held;
};

class ReplacementPolicy {
 public:
  virtual ~ReplacementPolicy() = default;
  // The slot is not held. Values of one block (its layers) give the same place.
  virtual void Insert(uint32_t slot, const ChainPlace& place) = 0;
  // The slot is held.
  virtual void Touch(uint32_t slot) = 0;
  // The slot is held; a request that its block belongs to has read rows of it, and may go on doing so.
  virtual void TouchRows(uint32_t slot) { Touch(slot); }
  // The slot is held; afterwards it may be inserted again as another value.
  virtual void Remove(uint32_t slot) = 0;
  // The slot that leaves next among those that may; it is held until Remove. nullopt: none may.
  virtual std::optional<uint32_t> Victim(absl::FunctionRef<bool(uint32_t slot)> may_leave) = 0;

  // Whether a value may be the victim of its own insertion: it is worth less than all that are held.
  virtual bool MayRefuse() const { return false; }
  // Whether it has met the block, held or not, and not yet forgotten it.
  virtual bool Remembers(uint64_t /*block*/) const { return false; }
  // A request has looked for a chain of blocks, held or not; `new_blocks` of it were remembered nowhere. `chain`: those
  // of its blocks that belong to this policy, in order.
  virtual void Refer(absl::Span<const ChainPlace> /*chain*/, uint32_t /*new_blocks*/) {}

  // Bytes that it takes besides what each value costs.
  virtual size_t FixedBytes() const { return 0; }

  // Where chains are spread over several policies: what has come to pass with blocks whose parents this one does not
  // know. The caller hands each link to the policy that the parent belongs to.
  virtual std::vector<ChainLink> TakeLinks() { return {}; }
  virtual void Apply(const ChainLink& /*link*/) {}
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_REPLACEMENT_POLICY_H_
