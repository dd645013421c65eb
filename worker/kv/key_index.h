// What recall estimates q.k from, for every token of a sequence: an index of the keys, in host memory (recall.md
// section 4). One object holds all (layer, kv head) of a sequence, numbered layer * kv_heads + kv_head.
//
// Calls for different heads may run at once; blocks of one head come in order.
#ifndef TIDEPOOL_WORKER_KV_KEY_INDEX_H_
#define TIDEPOOL_WORKER_KV_KEY_INDEX_H_

#include <cstdint>
#include <memory>

#include "absl/types/span.h"
#include "base/bytes.h"
#include "policies/kv/kv_layout.h"
#include "policies/retain/compression_spec.h"
#include "worker/backend/index_scan.h"

namespace tidepool {

class KeyIndex {
 public:
  virtual ~KeyIndex() = default;

  // keys: [kBlockTokens][head_dim]. prompt: of a prompt that is being read, or restored; else decoded.
  virtual void AddBlock(int head, absl::Span<const float> keys, bool prompt) = 0;
  // A prompt is in. weight: [head_dim], the root mean square of the last queries by channel. An index that learns its
  // codes does it here, from the blocks that have come since.
  virtual void Learn(int head, absl::Span<const float> weight) {}
  // Learn is due, though no prompt has ended.
  virtual bool overdue() const { return false; }
  // scores[i][token] estimates queries[i].k for the tokens of the first `blocks` blocks.
  virtual void Score(int head, absl::Span<const float* const> queries, int32_t blocks, float* const* scores) const = 0;
  // What a device scores the first rows by (ProductIndex of 4 bits, once it has learnt); else without segments.
  virtual IndexCodes Codes(int head) const { return {}; }
  // Score for the rows that Codes leaves, of the first `blocks` blocks: scores[i][0] is of the first of them.
  virtual void ScoreUncoded(int head, absl::Span<const float* const> queries, int32_t blocks,
                            float* const* scores) const {}
  // Codes and tables.
  virtual int64_t bytes() const = 0;
  // The tables' part of it.
  virtual int64_t table_bytes() const { return 0; }
  // Keys that wait to be coded, beside it in host memory.
  virtual int64_t held_bytes() const { return 0; }

  // What cannot be had from the blocks again. Load comes before the blocks; false when the bytes are not those of such
  // an index.
  virtual void Save(ByteWriter& out) const {}
  virtual bool Load(ByteReader& in) { return true; }
};

// group: query heads of a kv head.
std::unique_ptr<KeyIndex> MakeKeyIndex(RecallIndex kind, const KvLayout& layout, int group);

// What an index takes, of all layers and kv heads.
struct IndexSize {
  double table_bytes = 0;  // once learnt from one prompt
  double bytes_per_token = 0;
};
IndexSize IndexSizeOf(RecallIndex kind, const KvLayout& layout);

// The last queries of a prompt that Learn goes by; 0: this kind does not learn.
int LearningQueries(RecallIndex kind);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_KEY_INDEX_H_
