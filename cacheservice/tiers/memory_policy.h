// The replacement policies of the memory tier by name (CacheOptions::memory_policy).
#ifndef TIDEPOOL_CACHESERVICE_TIERS_MEMORY_POLICY_H_
#define TIDEPOOL_CACHESERVICE_TIERS_MEMORY_POLICY_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "cacheservice/tiers/replacement_policy.h"

namespace tidepool {

inline constexpr char kMemoryPolicies[] = "chain, lru, sieve";
bool IsMemoryPolicy(std::string_view name);

// For a shard of so many bytes; `alone`: it is the only one. `name` is a memory policy.
std::unique_ptr<ReplacementPolicy> MakeReplacementPolicy(std::string_view name, uint64_t limit_bytes, bool alone);

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_MEMORY_POLICY_H_
