// Where blocks are, or why they are nowhere, without changing anything: for those who ask (CacheAdmin.Explain).
#ifndef TIDEPOOL_CACHESERVICE_TIERS_BLOCK_PLACES_H_
#define TIDEPOOL_CACHESERVICE_TIERS_BLOCK_PLACES_H_

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "cacheservice/tiers/departure_log.h"
#include "policies/kv/block_key.h"

namespace tidepool {

class DemotionQueue;
class MemoryTier;
class RemoteTier;
class TenantDisks;
class TenantTable;

// Of one block: how many of its layers are where.
struct BlockPlace {
  int memory_layers = 0;
  int disk_layers = 0;    // what waits to be written included
  int remote_layers = 0;  // of those that neither has
  int missing_layers = 0;
  bool pinned = false;
  std::string tenant;  // empty: not known
  Departure departure;
};

struct AskedTiers {
  const MemoryTier* memory;
  const DemotionQueue* queue;
  const TenantDisks* disk;
  RemoteTier* remote;  // null: none
  const TenantTable* tenants;
  const DepartureLog* departures;
};

// What the remote tier has not said by `deadline` is missing, and `remote_asked` false then, and where there is none.
std::vector<BlockPlace> FindBlockPlaces(const AskedTiers& tiers, absl::Span<const BlockKey> keys, int layers,
                                        absl::Time deadline, bool* remote_asked);

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_BLOCK_PLACES_H_
