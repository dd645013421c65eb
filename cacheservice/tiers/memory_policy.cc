#include "cacheservice/tiers/memory_policy.h"

#include "base/check.h"
#include "cacheservice/tiers/chain_policy.h"
#include "cacheservice/tiers/lru.h"
#include "cacheservice/tiers/sieve.h"

namespace tidepool {
namespace {

// Of a shard's bytes, for what is remembered of blocks that have left.
constexpr uint64_t kGhostShare = 128;

}  // namespace

bool IsMemoryPolicy(std::string_view name) { return name == "chain" || name == "lru" || name == "sieve"; }

std::unique_ptr<ReplacementPolicy> MakeReplacementPolicy(std::string_view name, uint64_t limit_bytes, bool alone) {
  TIDEPOOL_CHECK(IsMemoryPolicy(name));
  if (name == "lru") return std::make_unique<Lru>();
  if (name == "sieve") return std::make_unique<Sieve>();
  return std::make_unique<ChainPolicy>(limit_bytes / kGhostShare / ChainPolicy::kBlockBytes, alone);
}

}  // namespace tidepool
