// From what the tiers count to the messages of CacheAdmin.
#ifndef TIDEPOOL_CACHESERVICE_RPC_ADMIN_MESSAGES_H_
#define TIDEPOOL_CACHESERVICE_RPC_ADMIN_MESSAGES_H_

#include "cacheservice/manifests/manifest_codec.h"
#include "cacheservice/rpc/runtime_config.h"
#include "cacheservice/rpc/stream_table.h"
#include "cacheservice/tiers/pin_table.h"
#include "cacheservice/tiers/tier_stats.h"
#include "cacheservice/tiers/tiered_store.h"
#include "tidepool/v1/cache_admin.pb.h"

namespace tidepool {

// Tiers and what goes on between them.
void Fill(const CacheStats& from, v1::GetStatsResponse& to);
void Fill(const TierReadStats& from, v1::TierReadStats& to);
void Fill(const TenantStats& from, v1::TenantStats& to);
void Fill(const StreamStats& from, v1::StreamStats& to);
void Fill(const ManifestSummary& from, v1::SessionSummary& to);
void Fill(const PinInfo& from, v1::PinDescription& to);
void Fill(const RuntimeConfig::Entry& from, v1::ConfigFlag& to);

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RPC_ADMIN_MESSAGES_H_
