// What heads give up by their column sums within a decoding step, while attention has their keys at hand.
#include <algorithm>
#include <atomic>
#include <optional>

#include "absl/container/inlined_vector.h"
#include "worker/kv/compressor.h"

namespace tidepool {
namespace {

// Rows of a head that leave within a step: one, or a few where the layer's share has shrunk.
constexpr int kMostInStep = 4;

}  // namespace

bool Compressor::BeginStep(int32_t tokens) {
  found_.clear();
  const bool one_by_one = spec_.fate == Fate::kMerge && spec_.head_budget == HeadBudgetRule::kUniform &&
                          spec_.kv_precision == KvPrecision::kF16 && method_ != nullptr && method_->is_column_sums();
  if (!one_by_one || budgets_.empty() || first_step_due_) return false;
  if (held() && evicts_each_step()) SetBudgets(HorizonFrom(tokens), tokens, {});
  found_.resize(scorers_.size());
  lowest_.resize(scorers_.size());
  compared_.assign(scorers_.size(), {});
  for (LayerInStep& layer : in_step_) layer.done = false;
  return true;
}

LowestRows::Past Compressor::PastOf(const HeadRows& head, const LayerBudget& budget) {
  return {.first = std::min(budget.rows.sinks, budget.rows.heavy), .end = head.rows() - budget.rows.recent};
}

StepHook::Comparison* Compressor::Compares(const SequenceRows& rows, int layer, int kv_head) {
  const LayerBudget& budget = budgets_[layer];
  const HeadRows& head = rows.head(layer, kv_head);
  if (!GivesUp(budget, head) || head.rows() != budget.rows.total() + 1) return nullptr;
  const int i = layer * layout_.kv_heads + kv_head;
  lowest_[i].Follow(head);
  compared_[i].slot = lowest_[i].Guess(head, spec_.group_reduce, PastOf(head, budget));
  return &compared_[i];
}

bool Compressor::GivesUp(const LayerBudget& budget, const HeadRows& head) const {
  return !budget.dense && budget.each_step && budget.score == method_ && head.recalled_rows() == 0 &&
         budget.rows.total() > 0;
}

Compressor::Found Compressor::FindLeaving(Backend& backend, const SequenceRows& rows, int layer, int kv_head) {
  const LayerBudget& budget = budgets_[layer];
  const HeadRows& head = rows.head(layer, kv_head);
  LowestRows& lowest = lowest_[layer * layout_.kv_heads + kv_head];
  const int32_t kept = budget.rows.total();
  Found found = {.rows = head.rows()};
  if (!GivesUp(budget, head)) {
    lowest.Clear();
    return found;
  }
  lowest.Follow(head);
  if (head.rows() <= kept) found.what = Found::kNothingLeaves;
  if (head.rows() <= kept || head.rows() > kept + kMostInStep) return found;
  absl::InlinedVector<int32_t, kMostInStep> going(head.rows() - kept);
  lowest.Find(head, spec_.group_reduce, PastOf(head, budget), absl::MakeSpan(going));
  const StepHook::Comparison& compared = compared_[layer * layout_.kv_heads + kv_head];
  if (going.size() == 1 && compared.slot == going[0] && compared.nearest >= 0) {
    found.likes.push_back({.evicted = going[0], .target = compared.nearest, .similarity = compared.cosine});
    found.what = Found::kRows;
    return found;
  }
  std::sort(going.begin(), going.end(), [&](int32_t a, int32_t b) { return head.position(a) < head.position(b); });
  for (const int32_t slot : going) {
    const std::optional<Backend::Alike> like = backend.MostLike(rows, layer, kv_head, slot, going);
    if (!like.has_value()) return found;
    found.likes.push_back({.evicted = slot, .target = like->slot, .similarity = like->cosine});
  }
  found.what = Found::kRows;
  return found;
}

void Compressor::AfterHead(Backend& backend, SequenceRows& rows, int layer, int kv_head) {
  found_[layer * layout_.kv_heads + kv_head] = FindLeaving(backend, rows, layer, kv_head);
  LayerInStep& of_layer = in_step_[layer];
  if (of_layer.attended.fetch_add(1, std::memory_order_acq_rel) + 1 < layout_.kv_heads) return;
  of_layer.attended.store(0, std::memory_order_relaxed);
  // Observers are told when the step is over. The newest rows are logged then, as they were computed.
  bool may_go = merger_.layers_at_once();
  for (int head = 0; head < layout_.kv_heads; ++head) {
    for (const RowMerger::Like& like : found_[layer * layout_.kv_heads + head].likes) {
      may_go = may_go && like.target != rows.head(layer, head).order().back();
    }
  }
  if (may_go) of_layer.done = GoByFound(backend, rows, layer, of_layer.work);
}

bool Compressor::GoByFound(Backend& backend, SequenceRows& rows, int layer, LayerWork& work) {
  const absl::Span<const Found> found =
      absl::MakeConstSpan(found_).subspan(size_t{1} * layer * layout_.kv_heads, layout_.kv_heads);
  for (int kv_head = 0; kv_head < layout_.kv_heads; ++kv_head) {
    if (found[kv_head].what != found[0].what || found[kv_head].likes.size() != found[0].likes.size() ||
        found[kv_head].rows != rows.head(layer, kv_head).rows()) {
      return false;
    }
  }
  work = {};
  if (found[0].what == Found::kNothingLeaves) return true;
  if (found[0].what != Found::kRows) return false;
  absl::InlinedVector<RowMerger::Likes, 16> likes;
  for (const Found& of_head : found) likes.push_back(of_head.likes);
  work.merged_rows = merger_.MergeFew(backend, rows, layer, likes);
  for (int kv_head = 0; kv_head < layout_.kv_heads; ++kv_head) {
    for (const RowMerger::Like& like : likes[kv_head]) {
      rows.head(layer, kv_head).Remove(like.evicted);
      lowest_[layer * layout_.kv_heads + kv_head].Left(like.evicted);
    }
    work.evicted_rows += static_cast<int64_t>(likes[kv_head].size());
  }
  return true;
}

}  // namespace tidepool
