// The exact keys and values of one sequence outside the device: what was computed, block after block, as it goes to the
// cache service. Rows of the block that is being filled, and of blocks whose storage is not acknowledged yet, are kept
// in host memory: until then they are recalled from here. So a row is always either resident, or here, or stored - or
// counted as lost.
#ifndef TIDEPOOL_WORKER_KV_BLOCK_LOG_H_
#define TIDEPOOL_WORKER_KV_BLOCK_LOG_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cacheservice/api/block_cache.h"
#include "policies/kv/block_key.h"
#include "policies/kv/kv_layout.h"

namespace tidepool {

struct BlockLogOptions {
  std::string tenant;
  std::string tenant_salt;
  std::string session_lineage;  // lineage of blocks computed after a compression
  bool durable = false;         // blocks are acknowledged on disk (sessions)
};

class BlockLog {
 public:
  // `cache` may be null: then nothing is stored, only the keys are made. Lives as long as the engine.
  BlockLog(const KvLayout& layout, BlockLogOptions options, BlockCache* cache);
  // Waits for nothing: late acknowledgements find nobody.
  ~BlockLog();
  BlockLog(const BlockLog&) = delete;
  BlockLog& operator=(const BlockLog&) = delete;

  const KvLayout& layout() const { return layout_; }
  int32_t tokens() const { return tokens_; }  // whose rows are in the log
  int32_t full_blocks() const { return static_cast<int32_t>(keys_.size()); }
  int32_t tail_tokens() const { return tokens_ % kBlockTokens; }
  int32_t room_in_tail() const { return kBlockTokens - tail_tokens(); }
  bool exact() const { return exact_; }                        // everything so far is of the exact lineage
  const std::vector<BlockKey>& keys() const { return keys_; }  // of the full blocks

  // Takes over blocks that are stored already (a reused prefix or a resumed session). `exact`: of the exact lineage.
  void AdoptStored(absl::Span<const BlockKey> keys, bool exact);

  // Appends up to room_in_tail() tokens: fill(layer, kv_head, out) writes their rows, row_bytes each. `exact`: computed
  // with full attention. A block that becomes full is keyed and offloaded; before that on_full(block, layer, kv_head,
  // rows) sees its kBlockTokens rows, if it is set.
  void Append(absl::Span<const int32_t> token_ids, bool exact,
              absl::FunctionRef<void(int layer, int kv_head, char* out)> fill);
  // Where Append has fill write the next token's row of the first layer and kv head; that of the next head, and layer,
  // comes kBlockTokens rows later.
  char* NextRow() { return tail_.data() + TailOffset(0, 0, tail_tokens()); }
  using FullBlockObserver = std::function<void(int32_t block, int layer, int kv_head, const char* rows)>;
  void set_on_full(FullBlockObserver observer) { on_full_ = std::move(observer); }
  // Runs body(0 .. count-1) in any order, at once for different numbers: on_full for each (layer, kv head), and what a
  // full block costs. A step waits for it.
  using ParallelRun = std::function<void(int64_t count, absl::FunctionRef<void(int64_t)> body)>;
  void set_parallel_for(ParallelRun run) { parallel_for_ = std::move(run); }

  // Whether a block may wait for room in a write-behind buffer that is full: not beside sequences that decode.
  void set_may_wait(bool may_wait) { may_wait_ = may_wait; }

  // Stores the block being filled as it is (a session's end), under a key of its own. Nothing when the tail is empty.
  void StoreTail();
  // Key under which StoreTail stores: the manifest's last key.
  BlockKey TailKey() const;
  // Rows of the tail for a layer and kv head: tail_tokens() of them.
  const char* TailRows(int layer, int kv_head) const;

  // A full block's value of a layer while it is in host memory still; null: it was acknowledged, or refused.
  std::shared_ptr<const std::string> Waiting(int32_t block, int layer) const;
  bool AnyWaiting() const;
  // The block's rows of this layer were refused or lost: they cannot be recalled.
  bool IsLost(int32_t block, int layer) const;
  bool AnyLost() const;
  // Nothing while the value is in host memory still: then it is not lost.
  void MarkLost(int32_t block, int layer);
  // The service has acknowledged the block's rows of this layer: it is to be asked for them.
  bool IsStored(int32_t block, int layer) const;

  // Offloads neither acknowledged nor failed. Thread-safe, like the three below.
  int64_t pending() const;
  int64_t stored_bytes() const;  // acknowledged since ResetStoredBytes
  void ResetStoredBytes();
  int64_t failed_blocks() const;  // (block, layer) values refused
  absl::Status first_failure() const;
  // Called (from any thread) whenever pending() becomes zero. Must not call back into the log.
  void set_on_idle(std::function<void()> on_idle);

 private:
  struct Shared;

  size_t TailOffset(int layer, int kv_head, int token) const;
  std::string BuildValue(int layer, int32_t first_position, int tokens) const;
  void ParallelFor(int64_t count, absl::FunctionRef<void(int64_t)> body) const;
  void Store(const BlockKey& key, int32_t block, int layer, std::string value);
  std::string_view Lineage() const;

  const KvLayout layout_;
  const BlockLogOptions options_;
  BlockCache* const cache_;
  int32_t tokens_ = 0;
  bool exact_ = true;  // everything so far
  bool may_wait_ = true;
  std::vector<BlockKey> keys_;
  std::vector<int32_t> tail_ids_;
  std::string tail_;  // [layer][kv_head][kBlockTokens][row_bytes]
  FullBlockObserver on_full_;
  ParallelRun parallel_for_;
  std::shared_ptr<Shared> shared_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_BLOCK_LOG_H_
