// How much of a chain of blocks is stored where it is worth reading.
#ifndef TIDEPOOL_CACHESERVICE_TIERS_PREFIX_LOOKUP_H_
#define TIDEPOOL_CACHESERVICE_TIERS_PREFIX_LOOKUP_H_

#include "absl/types/span.h"
#include "cacheservice/api/block_cache.h"

namespace tidepool {

class DemotionQueue;
class LowerTiers;
class MemoryTier;

struct PrefixTiers {
  MemoryTier* memory;
  const DemotionQueue* queue;
  LowerTiers* lower;
};

// As TieredStore::LookupPrefix.
PrefixHit LookUpPrefix(const PrefixTiers& tiers, absl::Span<const BlockKey> chain, int layers, const ReadTerms& terms);

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_PREFIX_LOOKUP_H_
