// Which of the held objects leaves next. Objects are slots, small integers that the caller hands out; the policy knows
// nothing of keys, sizes or time, so that a trace can be replayed against any policy. Not thread-safe.
//
//   policy.Insert(slot);                                       // new
//   policy.Touch(slot);                                        // read
//   while (full) { auto victim = policy.Victim(may_leave); policy.Remove(*victim); }
#ifndef TIDEPOOL_CACHESERVICE_TIERS_REPLACEMENT_POLICY_H_
#define TIDEPOOL_CACHESERVICE_TIERS_REPLACEMENT_POLICY_H_

#include <cstdint>
#include <optional>

#include "absl/functional/function_ref.h"

namespace tidepool {

class ReplacementPolicy {
 public:
  virtual ~ReplacementPolicy() = default;
  // The slot is not held.
  virtual void Insert(uint32_t slot) = 0;
  // The slot is held.
  virtual void Touch(uint32_t slot) = 0;
  // The slot is held; afterwards it may be inserted again as another object.
  virtual void Remove(uint32_t slot) = 0;
  // The slot that leaves next among those that may; it is held until Remove. nullopt: none may.
  virtual std::optional<uint32_t> Victim(absl::FunctionRef<bool(uint32_t slot)> may_leave) = 0;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_REPLACEMENT_POLICY_H_
