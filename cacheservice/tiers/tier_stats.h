// Counters of the tiers, as plain values. All counts are since the store was opened.
#ifndef TIDEPOOL_CACHESERVICE_TIERS_TIER_STATS_H_
#define TIDEPOOL_CACHESERVICE_TIERS_TIER_STATS_H_

#include <cstdint>
#include <string>

#include "base/circuit_breaker.h"
#include "base/histogram.h"

namespace tidepool {

// What reads of a tier below memory take, and whether prefixes go without it (tier_gate.h).
struct TierReadStats {
  uint64_t reads = 0;           // that gave values, some at a time
  double latency_seconds = 0;   // of a read of next to nothing, expected; 0: not seen yet, or next to nothing
  double bytes_per_second = 0;  // beyond that; 0: not seen yet, or they do not count beside the latency
  CircuitBreaker::State state = CircuitBreaker::State::kClosed;
  double retry_seconds = 0;       // until one that is left out is tried again
  uint64_t times_left_out = 0;    // that it began to be
  uint64_t lookups_left_out = 0;  // of prefixes that went without it
};

struct TierStats {
  uint64_t limit_bytes = 0;
  uint64_t bytes = 0;  // values and what keeping them costs
  uint64_t objects = 0;
  uint64_t hits = 0;  // block reads that this tier answered
  uint64_t misses = 0;
  uint64_t puts = 0;            // values newly stored here
  uint64_t repeated_puts = 0;   // values that were here already
  uint64_t evictions = 0;       // values that left to make room
  uint64_t corrupt = 0;         // values whose checksums differed when read: dropped, answered as misses
  uint64_t write_failures = 0;  // values that could not be stored
  uint64_t expired = 0;         // values that left because nobody had used them for so long
  uint64_t renewed = 0;         // values stored anew when they would have expired, because they had been used

  TierStats& operator+=(const TierStats& other) {
    limit_bytes += other.limit_bytes;
    bytes += other.bytes;
    objects += other.objects;
    hits += other.hits;
    misses += other.misses;
    puts += other.puts;
    repeated_puts += other.repeated_puts;
    evictions += other.evictions;
    corrupt += other.corrupt;
    write_failures += other.write_failures;
    expired += other.expired;
    renewed += other.renewed;
    return *this;
  }
};

// Seconds of a gather: from memory's to what a deadline allows.
inline constexpr double kGatherSecondsBounds[] = {0.00001, 0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002,
                                                  0.005,   0.01,    0.02,    0.05,   0.1,    0.5,    2,     10};

// All counts are of block values.
struct RemoteTierStats {
  using Breaker = CircuitBreaker::State;

  bool enabled = false;
  Breaker breaker = Breaker::kClosed;
  uint64_t breaker_opened = 0;
  double retry_seconds = 0;  // until an open breaker lets a probe through
  std::string last_failure;  // empty: none yet
  uint64_t hits = 0;
  uint64_t hit_bytes = 0;
  // Misses by reason.
  uint64_t absent = 0;
  uint64_t incomplete = 0;   // a piece is missing
  uint64_t corrupt = 0;      // checksums or sizes differ: deleted there
  uint64_t unavailable = 0;  // not asked: the breaker is open
  uint64_t failed = 0;       // asked, and no answer in time, or an error
  uint64_t puts = 0;
  uint64_t put_bytes = 0;
  uint64_t repeated_puts = 0;   // were there already
  uint64_t write_failures = 0;  // given up after several attempts
  uint64_t backlog_bytes = 0;   // on disk, in its older half, and not copied yet
  uint64_t dropped = 0;         // left the disk before they were copied
};

struct CacheStats {
  TierStats memory;
  TierStats disk;
  RemoteTierStats remote;
  TierReadStats disk_reads, remote_reads;
  uint64_t pinned_objects = 0;
  uint64_t pinned_bytes = 0;
  uint64_t demotions = 0;  // values written to disk because memory had no room for them
  uint64_t promotions = 0;
  uint64_t dropped = 0;               // values that left memory and could not be written to disk: gone
  uint64_t demotion_queue_bytes = 0;  // waiting to be written
  uint64_t recalled_rows = 0;
  uint64_t recalled_bytes = 0;
  uint64_t missing_rows = 0;  // asked for in a gather and not there
  uint64_t late_blocks = 0;   // on disk or nowhere, and not read because the deadline passed
  uint64_t slow_blocks = 0;   // not read because the tiers that might have them are slower than computing them
  Histogram gather_seconds{kGatherSecondsBounds};
  uint64_t disk_used_bytes = 0;  // files of the database, manifests included
  bool disk_writable = true;     // false after a failed write until one succeeds
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_TIER_STATS_H_
