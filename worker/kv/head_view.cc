#include "worker/kv/head_view.h"

#include <algorithm>

#include "base/check.h"
#include "policies/retain/expected_attention.h"
#include "worker/kv/window_attention.h"

namespace tidepool {
std::vector<int32_t> KeptSlots(const HeadRows& head) {
  std::vector<int32_t> slots;
  slots.reserve(head.rows());
  for (int32_t slot : head.order()) {
    if (head.kind(slot) == RowKind::kKept) slots.push_back(slot);
  }
  return slots;
}

std::vector<float> ColumnSumsOf(const HeadRows& head, absl::Span<const int32_t> slots, GroupReduce reduce) {
  TIDEPOOL_CHECK(head.keeps_column_sums());
  std::vector<float> result(slots.size(), 0.0f);  // sums of probabilities
  for (const std::vector<float>& sums : head.column_sums()) {
    for (size_t i = 0; i < slots.size(); ++i) {
      const float sum = sums[slots[i]];
      result[i] = reduce == GroupReduce::kMax ? std::max(result[i], sum) : result[i] + sum;
    }
  }
  if (head.keeps_step_sums()) {
    TIDEPOOL_CHECK(reduce != GroupReduce::kMax);
    for (size_t i = 0; i < slots.size(); ++i) result[i] += head.step_sums()[slots[i]];
  }
  if (reduce == GroupReduce::kMean) {
    for (float& sum : result) sum /= static_cast<float>(head.column_sums().size());
  }
  return result;
}

ResidentHeadView::ResidentHeadView(const Sequence& sequence, int layer, int kv_head, int budget)
    : sequence_(sequence),
      head_(&sequence.rows->head(layer, kv_head)),
      layer_(layer),
      kv_head_(kv_head),
      budget_(budget),
      slots_(KeptSlots(*head_)) {}

AttentionRows ResidentHeadView::Attention(int last, absl::FunctionRef<float(int32_t position)> scale) const {
  TIDEPOOL_CHECK(sequence_.ring != nullptr);
  return AttentionOfLast(*sequence_.backend, *sequence_.rows, layer_, kv_head_, sequence_.group, *sequence_.ring, last,
                         scale);
}

std::vector<float> ResidentHeadView::SummedAttention(int last) const {
  std::vector<float> sums;
  if (!head_->keeps_step_sums() || head_->summed_steps() != last) return sums;
  sums.reserve(slots_.size());
  for (int32_t slot : slots_) sums.push_back(head_->step_sums()[slot]);
  return sums;
}

std::vector<float> ResidentHeadView::ColumnSums(GroupReduce reduce) const {
  return ColumnSumsOf(*head_, slots_, reduce);
}

std::vector<float> ResidentHeadView::Keys(int first, int count) const {
  return ReadVectors(*sequence_.backend, *sequence_.rows, layer_, kv_head_,
                     absl::MakeConstSpan(slots_).subspan(first, count))
      .keys;
}

std::vector<float> ResidentHeadView::Values(int first, int count) const {
  return ReadVectors(*sequence_.backend, *sequence_.rows, layer_, kv_head_,
                     absl::MakeConstSpan(slots_).subspan(first, count))
      .values;
}

HeadQueries ResidentHeadView::Queries(int last) const {
  TIDEPOOL_CHECK(sequence_.ring != nullptr && !slots_.empty());
  const QueryRing& ring = *sequence_.ring;
  HeadQueries queries;
  queries.count = std::min(last, ring.tokens(layer_));
  // Also where its row has gone since, the newest position is that of the newest query.
  queries.first_position = head_->position(head_->order().back()) - queries.count + 1;
  queries.data.reserve(size_t{1} * group() * queries.count * head_dim());
  const int first = ring.tokens(layer_) - queries.count;
  for (int g = 0; g < group(); ++g) {
    for (int i = 0; i < queries.count; ++i) {
      const float* query = ring.Token(layer_, first + i) + int64_t{kv_head_ * group() + g} * head_dim();
      queries.data.insert(queries.data.end(), query, query + head_dim());
      Unrotate(rope(), queries.first_position + i, absl::MakeSpan(queries.data).last(head_dim()));
    }
  }
  return queries;
}

}  // namespace tidepool
