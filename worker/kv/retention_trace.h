// What became of every row of one sequence: kept, merged, evicted or recalled, by (layer, kv head) and position; and
// how much of the attention that the full cache would give falls on rows that are there.
//
// It keeps a float16 copy of every key, so the attention over all positions can be computed also after most rows have
// left: the numbers do not depend on what recall finds. Watches a sequence from its first token on (so the request has
// reuse_prefix false). Written by the engine thread; read it when the request has ended.
#ifndef TIDEPOOL_WORKER_KV_RETENTION_TRACE_H_
#define TIDEPOOL_WORKER_KV_RETENTION_TRACE_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "policies/kv/kv_layout.h"
#include "worker/kv/query_ring.h"
#include "worker/kv/retention_observer.h"

namespace tidepool {

// As of the last step. kEvicted and kMerged rows have left the device; so have kRecalled rows, which held a recall slot
// in at least one step. Every position of a head has one fate.
enum class RowFate : uint8_t { kEvicted, kMerged, kRecalled, kKept };

// One (layer, kv head).
struct HeadRetention {
  int32_t kept = 0, recalled = 0, merged = 0, evicted = 0;  // positions by fate
  int32_t recall_slots = 0;                                 // in use after the last step
  int64_t recall_steps = 0;                                 // recalled rows in use, summed over the steps
  // Shares of the full cache's attention, 0 to 1, mean over queries and the group's heads.
  double prompt_attention = 0;  // of the first prompt's last queries, on what the policy left of it
  double later_kept = 0;        // of the later queries, on kept rows
  double later_recalled = 0;    // of the same, on recalled rows
};

class RetentionTrace final : public RetentionObserver {
 public:
  // query_window: how many of a prompt's last queries count.
  RetentionTrace(const KvLayout& layout, int query_heads, int query_window);

  void BeforeAttention(Backend& backend, const SequenceRows& rows, int layer, int32_t first_position, int32_t tokens,
                       bool compressed, const SliceQueries& queries) override;
  void OnMerge(int layer, int kv_head, int32_t position, int32_t into) override;
  void AfterPrompt(Backend& backend, const SequenceRows& rows, int32_t tokens) override;
  void AfterStep(const SequenceRows& rows, int32_t tokens) override;

  int layers() const { return layout_.layers; }
  int kv_heads() const { return layout_.kv_heads; }
  int32_t tokens() const { return tokens_; }               // whose rows were computed
  int32_t prompt_tokens() const { return first_prompt_; }  // of the first turn
  int64_t later_queries() const { return layout_.layers == 0 ? 0 : heads_[0].later_queries; }

  RowFate fate(int layer, int kv_head, int32_t position) const;
  // Steps in which the row held a recall slot; stops at 65535.
  int recalled_steps(int layer, int kv_head, int32_t position) const;
  // Attention of the first prompt's last queries on it, mean over queries and the group's heads; 0 past that prompt.
  float prompt_attention(int layer, int kv_head, int32_t position) const;
  HeadRetention Retention(int layer, int kv_head) const;

 private:
  struct Head {
    std::vector<uint16_t> keys;  // [position][head_dim], float16
    std::vector<uint8_t> kept, merged;
    std::vector<uint16_t> recalled;  // steps
    std::vector<float> prompt_attention;
    double prompt_share = 0;
    double later_kept = 0, later_recalled = 0;  // sums over queries
    int64_t later_queries = 0;
    int32_t recall_slots = 0;
  };

  Head& head(int layer, int kv_head) { return heads_[layer * layout_.kv_heads + kv_head]; }
  const Head& head(int layer, int kv_head) const { return heads_[layer * layout_.kv_heads + kv_head]; }
  void TakeKeys(Backend& backend, const SequenceRows& rows, int layer, int kv_head, int32_t first_position,
                int32_t tokens);
  // Of the group's queries of one token over the positions below `visible`, mean over the group.
  std::vector<float> FullAttention(const Head& head, absl::Span<const float* const> queries, int32_t visible) const;
  void CountLaterQueries(Head& head, int kv_head, const HeadRows& resident, int32_t first_position, int32_t tokens,
                         bool compressed, const SliceQueries& queries) const;
  void Snapshot(const SequenceRows& rows, int32_t tokens);

  const KvLayout layout_;
  const int group_, window_;
  QueryRing prompt_queries_;
  int32_t tokens_ = 0, first_prompt_ = 0;
  bool prompt_seen_ = false;
  std::vector<Head> heads_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_RETENTION_TRACE_H_
