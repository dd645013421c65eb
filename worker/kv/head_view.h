// One (layer, kv head) of a sequence as token scores see it: the rows that the policy keeps, by ascending position, and
// the last queries.
#ifndef TIDEPOOL_WORKER_KV_HEAD_VIEW_H_
#define TIDEPOOL_WORKER_KV_HEAD_VIEW_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "policies/retain/score_method.h"
#include "worker/backend/backend.h"
#include "worker/kv/query_ring.h"
#include "worker/kv/resident_rows.h"

namespace tidepool {

// Slots of the rows that the policy keeps, by ascending position.
std::vector<int32_t> KeptSlots(const HeadRows& head);
// Column sums of some of its slots, reduced over the group, those of decoding steps included.
std::vector<float> ColumnSumsOf(const HeadRows& head, absl::Span<const int32_t> slots, GroupReduce reduce);
class ResidentHeadView final : public HeadView {
 public:
  // What is pointed to outlives the view, and does not change.
  struct Sequence {
    Backend* backend = nullptr;
    const SequenceRows* rows = nullptr;
    const QueryRing* ring = nullptr;  // null when no queries are remembered
    SequenceClasses classes;
    int group = 1;
  };
  ResidentHeadView(const Sequence& sequence, int layer, int kv_head, int budget);

  int layer() const override { return layer_; }
  int kv_head() const override { return kv_head_; }
  int group() const override { return sequence_.group; }
  int head_dim() const override { return sequence_.backend->layout().head_dim; }
  int rows() const override { return static_cast<int>(slots_.size()); }
  int32_t position(int row) const override { return head_->position(slots_[row]); }
  TokenClass token_class(int row) const override { return sequence_.classes.At(position(row)); }
  int budget() const override { return budget_; }

  using HeadView::Attention;
  AttentionRows Attention(int last, absl::FunctionRef<float(int32_t position)> scale) const override;
  std::vector<float> SummedAttention(int last) const override;
  std::vector<float> ColumnSums(GroupReduce reduce) const override;
  std::vector<float> Keys(int first, int count) const override;
  std::vector<float> Values(int first, int count) const override;
  HeadQueries Queries(int last) const override;
  const Rope& rope() const override { return sequence_.backend->rope(); }

  // Of rows().
  const std::vector<int32_t>& slots() const { return slots_; }

 private:
  const Sequence sequence_;
  const HeadRows* const head_;
  const int layer_, kv_head_, budget_;
  const std::vector<int32_t> slots_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_HEAD_VIEW_H_
