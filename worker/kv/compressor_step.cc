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
  guesses_.assign(scorers_.size(), {});
  for (LayerInStep& layer : in_step_) layer.done = false;
  return true;
}

Compressor::Past Compressor::PastOf(const HeadRows& head, const LayerBudget& budget) {
  const absl::Span<const int32_t> order = head.order();
  const int sinks = std::min(budget.rows.sinks, budget.rows.heavy);
  const int end = static_cast<int>(order.size()) - budget.rows.recent;
  return {.first = head.position(order[sinks]), .end = head.position(order[end - 1]) + 1};
}

StepHook::Comparison* Compressor::Compares(const SequenceRows& rows, int layer, int kv_head) {
  const LayerBudget& budget = budgets_[layer];
  const HeadRows& head = rows.head(layer, kv_head);
  if (!GivesUp(budget, head) || head.rows() != budget.rows.total() + 1) return nullptr;
  const Past past = PastOf(head, budget);
  const LeastSum least = LeastByColumnSums(head, head.positions(), past.first, past.end, spec_.group_reduce);
  Guess& guess = guesses_[layer * layout_.kv_heads + kv_head];
  guess.compared.slot = least.slot;
  guess.others = least.others;
  return &guess.compared;
}

bool Compressor::GivesUp(const LayerBudget& budget, const HeadRows& head) const {
  return !budget.dense && budget.each_step && budget.score == method_ && head.recalled_rows() == 0 &&
         budget.rows.total() > 0;
}

Compressor::Found Compressor::FindLeaving(Backend& backend, const SequenceRows& rows, int layer, int kv_head) const {
  const LayerBudget& budget = budgets_[layer];
  const HeadRows& head = rows.head(layer, kv_head);
  const int32_t kept = budget.rows.total();
  Found found = {.rows = head.rows()};
  if (!GivesUp(budget, head)) return found;
  if (head.rows() <= kept) found.what = Found::kNothingLeaves;
  if (head.rows() <= kept || head.rows() > kept + kMostInStep) return found;
  const Past past = PastOf(head, budget);
  absl::InlinedVector<int32_t, kMostInStep> going;
  if (head.rows() == kept + 1) {
    const auto& [compared, others] = guesses_[layer * layout_.kv_heads + kv_head];
    // Sums only grow: what was below all others before the step still is if it is below what they were then.
    const bool is_least = compared.slot >= 0 && ScoreByColumnSums(head, compared.slot, spec_.group_reduce) < others;
    const int32_t slot = is_least
                             ? compared.slot
                             : LeastByColumnSums(head, head.positions(), past.first, past.end, spec_.group_reduce).slot;
    if (compared.slot == slot && compared.nearest >= 0) {
      found.likes.push_back({.evicted = slot, .target = compared.nearest, .similarity = compared.cosine});
      found.what = Found::kRows;
      return found;
    }
    going.push_back(slot);
  } else {
    std::vector<int32_t> left(head.positions().begin(), head.positions().end());
    for (int32_t rows_left = head.rows(); rows_left > kept; --rows_left) {
      going.push_back(LeastByColumnSums(head, left, past.first, past.end, spec_.group_reduce).slot);
      left[going.back()] = -1;
    }
    std::sort(going.begin(), going.end(), [&](int32_t a, int32_t b) { return head.position(a) < head.position(b); });
  }
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
    for (const RowMerger::Like& like : likes[kv_head]) rows.head(layer, kv_head).Remove(like.evicted);
    work.evicted_rows += static_cast<int64_t>(likes[kv_head].size());
  }
  return true;
}

}  // namespace tidepool
