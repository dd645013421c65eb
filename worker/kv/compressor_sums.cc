// What a policy has of attention while that is computed, in place of computing it again.
#include <utility>

#include "policies/retain/layer_budget.h"
#include "worker/kv/compressor.h"

namespace tidepool {

bool Compressor::keeps_step_sums(int layer) const {
  return method_ != nullptr && method_->is_column_sums() && spec_.group_reduce != GroupReduce::kMax &&
         !IsDenseLayer(spec_, layer, layout_.layers);
}

void Compressor::KeepSums(SequenceRows& rows) const {
  if (!NeedsColumnSums(spec_)) return;
  // What steps attend to is asked of layers that evict by it alone: the variances are those of prompts.
  const bool asked = method_ != nullptr && method_->needs_column_sums();
  for (int layer = 0; layer < layout_.layers; ++layer) {
    const bool together = keeps_step_sums(layer);
    for (int kv_head = 0; kv_head < layout_.kv_heads; ++kv_head) {
      HeadRows& head = rows.head(layer, kv_head);
      head.KeepColumnSums(group_, asked && !together && !IsDenseLayer(spec_, layer, layout_.layers));
      if (together) head.KeepStepSums();
    }
  }
}

void Compressor::StartWindow(const Backend& backend, SequenceRows& rows, int32_t tokens) {
  const int window = method_ != nullptr ? method_->SummedQueries(spec_) : 0;
  // Rows of lazy layers come and go meanwhile, and those that recall promotes were not there from the beginning.
  if (window == 0 || in_window_ || !backend.sums_steps() || budgets_.empty() || first_step_due_ || !held() ||
      evicts_each_step() || (spec_.recall.mode != RecallMode::kOff && spec_.recall.promote_after > 0) ||
      spec_.layer_budget == LayerBudgetRule::kLazy) {
    return;
  }
  if (!Fits(rows, tokens + window, window) || Fits(rows, tokens + window + 1, window + 1)) return;
  in_window_ = true;
  for (int layer = 0; layer < layout_.layers; ++layer) {
    if (budgets_[layer].dense) continue;
    for (int kv_head = 0; kv_head < layout_.kv_heads; ++kv_head) rows.head(layer, kv_head).KeepStepSums();
  }
}

void Compressor::StopWindow(SequenceRows& rows) {
  if (!std::exchange(in_window_, false)) return;
  for (int layer = 0; layer < layout_.layers; ++layer) {
    for (int kv_head = 0; kv_head < layout_.kv_heads; ++kv_head) rows.head(layer, kv_head).DropStepSums();
  }
}

}  // namespace tidepool
