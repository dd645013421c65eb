// How much a cache may use, and where it keeps it. One struct for the embedded cache and for the service.
#ifndef TIDEPOOL_CACHESERVICE_TIERS_CACHE_OPTIONS_H_
#define TIDEPOOL_CACHESERVICE_TIERS_CACHE_OPTIONS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "cacheservice/tiers/remote_options.h"

namespace tidepool {

struct CacheOptions {
  static constexpr uint64_t kMiB = uint64_t{1} << 20;
  static constexpr uint64_t kGiB = uint64_t{1} << 30;
  static constexpr uint64_t kTiB = uint64_t{1} << 40;

  std::string data_dir;                 // made if absent; one process at a time
  uint64_t memory_bytes = 1 * kGiB;     // block values in memory, demotion queue included; 256 KiB to 16 TiB
  std::string memory_policy = "chain";  // which value leaves memory next: chain, lru or sieve
  uint64_t disk_bytes = 8 * kGiB;       // block values on disk; 16 MiB to 1024 TiB
  absl::Duration disk_ttl;             // block values on disk that nobody uses for so long leave; 0: only to make room;
                                       // else 1 s to 10 years of 365 days
  uint64_t manifest_bytes = 1 * kGiB;  // all session manifests, never evicted; 1 MiB to 16 TiB
  uint64_t demotion_queue_bytes = 0;   // evicted from memory, not yet on disk; 0: an eighth of memory_bytes, at most
                                       // 64 MiB; else 256 KiB to half of memory_bytes
  uint64_t write_behind_bytes = 64 * kMiB;  // embedded cache: offloaded, not yet stored; 256 KiB to 16 GiB
  int recall_threads = 2;                   // embedded cache: recalls answered at a time; 1 to 64
  RemoteTierOptions remote;                 // below the disk; default: none
  // Prefixes that are computed in less time than a tier takes to read them go without it, and try it again so much
  // later, then after pauses that double, up to 60 times as long; 1 ms to 1 h.
  absl::Duration slow_tier_retry = absl::Seconds(5);

  // InvalidArgument naming the field, its value and its range.
  absl::Status Validate() const;
  // demotion_queue_bytes with its default worked out.
  uint64_t EffectiveDemotionQueueBytes() const;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_CACHE_OPTIONS_H_
