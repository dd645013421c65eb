// Reads everything that a cache holds, at a bounded rate, and verifies it: CacheAdmin.Scrub.
#ifndef TIDEPOOL_CACHESERVICE_RPC_SCRUB_H_
#define TIDEPOOL_CACHESERVICE_RPC_SCRUB_H_

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "cacheservice/manifests/manifest_store_disk.h"
#include "cacheservice/rpc/job_stream.h"
#include "cacheservice/tiers/tiered_store.h"
#include "tidepool/v1/cache_admin.pb.h"

namespace tidepool {

inline constexpr uint64_t kDefaultScrubBytes = uint64_t{32} << 20;  // a second

// InvalidArgument naming the range.
absl::Status CheckScrubRate(uint64_t bytes_per_second);
// What comes in meanwhile is not read. `report` is called now and then, and once at the end. Cancelled.
absl::Status Scrub(TieredStore& blocks, DiskManifestStore& manifests, uint64_t bytes_per_second, JobControl& control,
                   const std::function<void(const v1::ScrubProgress&)>& report);

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RPC_SCRUB_H_
