// What `tidepool size` works out: bytes on the device, in the worker's host memory and in the cache's tiers, for so
// many sessions of so long a context. All by the functions that the worker and the cache themselves count with.
#ifndef TIDEPOOL_CLIENT_CLI_SIZE_PLAN_H_
#define TIDEPOOL_CLIENT_CLI_SIZE_PLAN_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "policies/kv/kv_layout.h"
#include "policies/retain/compression_spec.h"

namespace tidepool::cli {

struct SizeQuestion {
  KvLayout layout;
  CompressionSpec compression;
  int64_t context_tokens = 0;  // prompt and answer
  int64_t answer_tokens = 0;
  int64_t running = 1;   // sequences on one worker at a time
  int64_t sessions = 1;  // kept by the cache
  std::string memory_policy = "chain";
};

// Of one sequence, or one session, unless it says otherwise.
struct SizePlan {
  uint64_t token_bytes = 0;      // keys and values of a token, uncompressed
  uint64_t full_bytes = 0;       // of the context
  uint64_t reserved_bytes = 0;   // on the device: slot pages reserved when it starts
  uint64_t answering_bytes = 0;  // most rows on the device once the prompt is in
  uint64_t index_bytes = 0;      // recall index of the whole context
  bool index_on_device = false;
  uint64_t staged_bytes = 0;  // rows ready in host memory
  uint64_t blocks = 0;
  uint64_t memory_bytes = 0;  // of its values in the memory tier
  uint64_t disk_bytes = 0;
  uint64_t remote_bytes = 0;
  // Of all together, as flags.
  uint64_t device_kv_bytes = 0;    // tidepool-worker --device-kv-bytes
  uint64_t host_bytes = 0;         // index and staged rows of those that run
  uint64_t memory_flag_bytes = 0;  // tidepool-cache --memory-bytes: all sessions in memory
  uint64_t disk_flag_bytes = 0;    // --disk-bytes
};

// InvalidArgument naming the field: a number out of its range, or a budget that cannot be held.
absl::StatusOr<SizePlan> PlanSize(const SizeQuestion& question);

}  // namespace tidepool::cli

#endif  // TIDEPOOL_CLIENT_CLI_SIZE_PLAN_H_
