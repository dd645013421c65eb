// What a worker sees of the cache service: embedded (same process) and remote (gRPC) are the same to it.
// A block is a cache: losing one costs time, never correctness silently. Implementations are thread-safe.
#ifndef TIDEPOOL_CACHESERVICE_API_BLOCK_CACHE_H_
#define TIDEPOOL_CACHESERVICE_API_BLOCK_CACHE_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "policies/kv/block_key.h"

namespace tidepool {

// One stored value: a block in one layer.
struct BlockId {
  BlockKey key;
  int32_t layer = 0;
  friend bool operator==(const BlockId&, const BlockId&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const BlockId& id) {
    return H::combine(std::move(h), id.key, id.layer);
  }
};

// Rows of one block and kv head: bit t of row_mask wants token t of the block.
struct RowSelection {
  BlockId block;
  int32_t kv_head = 0;
  uint64_t row_mask = 0;
};

// Rows in the order of the selections and, within one, of ascending token. `found[i]` says which bits of selection i
// came; the missing ones are left out of `rows` and `row_checksums` (lost, expired or corrupt: counted by the service).
struct RecalledRows {
  bool complete = true;  // else missing rows may be stored all the same: the time was up, or a part failed
  std::vector<uint64_t> found;
  std::string rows;                     // [rows found][row_bytes]
  std::vector<uint32_t> row_checksums;  // as written by the producer, [rows found]; the consumer verifies
};

// On which a prefix is looked up, and blocks are fetched.
struct ReadTerms {
  ReadTerms(absl::Time deadline, double compute_bytes_per_second = 0)  // NOLINT: a time alone says it
      : deadline(deadline), compute_bytes_per_second(compute_bytes_per_second) {}
  absl::Time deadline;
  // Keys and values that the caller computes in a second, who would rather do that than wait longer: a tier that gives
  // them more slowly is left out. 0: none is.
  double compute_bytes_per_second;
};

// Leading blocks of a chain.
struct PrefixHit {
  int blocks = 0;
  int slow_blocks = 0;  // after those: stored, as far as is known, in tiers that are left out
};

struct OffloadOptions {
  bool durable = false;  // acknowledged only when on disk; else when in any tier
  BlockKey parent = {};  // the block before it in its chain; all zero: the first, or not known
  std::string tenant;    // whose, for quotas; empty: that of the connection
  // While the write-behind buffer is full: wait, a moment (patience is bounded); else it is refused at once.
  bool may_wait = true;
};

// A pod of a cache service of several, as its client sees it.
struct CachePodStats {
  enum class State : uint8_t { kConnecting, kUp, kSlowStart, kDraining, kLeaving, kDown };
  std::string name;  // its address until it was reached
  std::string address;
  State state = State::kConnecting;
  double weight = 0;  // share of its blocks that it is given, 0 to 1
  int64_t offloaded_blocks = 0, offloaded_bytes = 0;
  int64_t recalled_rows = 0, recalled_bytes = 0;
  int64_t fetched_bytes = 0;
  int64_t refetched_blocks = 0;  // that had come damaged
  int64_t failed_calls = 0;      // that it did not answer
  int64_t failed_rows = 0;       // asked of it and not come because it failed
  int64_t moved_blocks = 0;      // meant for it, given to another because it failed or refused
  int64_t downs = 0;             // times that it was left out
  int64_t resent_blocks = 0;     // that had arrived damaged
  int64_t reconnects = 0;
};

// Counters of one client of the cache, all since it was made.
struct BlockCacheStats {
  int64_t offloaded_blocks = 0, offloaded_bytes = 0;  // acknowledged
  int64_t offload_failures = 0;                       // blocks not stored although asked for
  int64_t resent_blocks = 0;                          // that had arrived damaged
  int64_t recalled_rows = 0, recalled_bytes = 0, missing_rows = 0;
  int64_t fetched_blocks = 0, fetched_bytes = 0;
  int64_t refetched_blocks = 0;  // that had come damaged
  int64_t reconnects = 0;
  std::vector<CachePodStats> pods;                         // empty: the service is one
  int64_t degraded_blocks = 0;                             // of two copies only one was stored: no second pod was there
  int64_t degraded_manifests = 0, repaired_manifests = 0;  // acknowledged on one pod only; copied again later
};

class BlockCache {
 public:
  virtual ~BlockCache() = default;

  // How many leading keys of the chain have their blocks of all layers stored. Also refreshes their recency.
  virtual absl::StatusOr<PrefixHit> LookupPrefix(absl::Span<const BlockKey> chain, const ReadTerms& terms) = 0;

  // Queues a block value (BlockBuilder) for storage and returns at once; waits only while the bounded write-behind
  // buffer is full, if it may, and then not for long: what finds no room has failed (ResourceExhausted). Idempotent by
  // id. `done` is called once, from another thread, when it is acknowledged or has
  // failed.
  virtual void Offload(BlockId id, std::string value, OffloadOptions options,
                       std::function<void(absl::Status)> done) = 0;

  // Gathers rows. `done` is called once, from another thread or this one. DeadlineExceeded or Unavailable when nothing
  // came.
  virtual void Recall(std::vector<RowSelection> selections, absl::Time deadline,
                      std::function<void(absl::StatusOr<RecalledRows>)> done) = 0;

  // Whole block values, all verified, in the order asked; nullopt for a miss, and for what is in a tier that is left
  // out.
  virtual absl::StatusOr<std::vector<std::optional<std::string>>> FetchBlocks(absl::Span<const BlockId> ids,
                                                                              const ReadTerms& terms) = 0;

  virtual BlockCacheStats Stats() const = 0;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_API_BLOCK_CACHE_H_
