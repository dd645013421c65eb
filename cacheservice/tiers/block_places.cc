#include "cacheservice/tiers/block_places.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>

#include "absl/time/clock.h"
#include "cacheservice/tiers/demotion_queue.h"
#include "cacheservice/tiers/memory_tier.h"
#include "cacheservice/tiers/remote_tier.h"
#include "cacheservice/tiers/tenant_disks.h"
#include "cacheservice/tiers/tenant_table.h"

namespace tidepool {
namespace {

// Of one block in the tiers of this machine. Returns the layers that they do not have.
std::vector<int32_t> FindHere(const AskedTiers& tiers, const BlockKey& key, int layers, BlockPlace* place) {
  std::vector<int32_t> elsewhere;
  TenantId tenant = kNoTenant;
  for (int layer = 0; layer < layers; ++layer) {
    const BlockId id{key, layer};
    if (const MemoryTier::Held held = tiers.memory->Peek(id); held.value != nullptr) {
      ++place->memory_layers;
      place->pinned = place->pinned || held.pinned;
      tenant = std::max(tenant, held.tenant);
    } else if (const std::optional<TenantId> on_disk = tiers.disk->TenantOf(id); on_disk.has_value()) {
      ++place->disk_layers;
      tenant = std::max(tenant, *on_disk);
    } else if (tiers.queue->Find(id) != nullptr) {
      ++place->disk_layers;
    } else {
      elsewhere.push_back(layer);
    }
  }
  place->tenant = tiers.tenants->NameOf(tenant);
  return elsewhere;
}

}  // namespace

std::vector<BlockPlace> FindBlockPlaces(const AskedTiers& tiers, absl::Span<const BlockKey> keys, int layers,
                                        absl::Time deadline, bool* remote_asked) {
  std::vector<BlockPlace> places;
  places.reserve(keys.size());
  for (const BlockKey& key : keys) {
    BlockPlace& place = places.emplace_back();
    std::vector<int32_t> elsewhere = FindHere(tiers, key, layers, &place);
    if (elsewhere.empty()) continue;
    place.departure = tiers.departures->Find(key);
    place.missing_layers = static_cast<int>(elsewhere.size());
    if (tiers.remote == nullptr || absl::Now() >= deadline) continue;
    const RemoteTier::Wanted wanted = {.key = key, .layers = std::move(elsewhere)};
    if (tiers.remote->CountLeading({&wanted, 1}, deadline) == 1) {
      place.remote_layers = std::exchange(place.missing_layers, 0);
    }
  }
  *remote_asked = tiers.remote != nullptr && absl::Now() < deadline &&
                  tiers.remote->Stats().breaker == RemoteTierStats::Breaker::kClosed;
  return places;
}

}  // namespace tidepool
