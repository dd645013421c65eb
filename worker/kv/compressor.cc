#include "worker/kv/compressor.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "base/check.h"
#include "policies/retain/head_budget.h"
#include "policies/retain/select.h"
#include "policies/retain/token_scores.h"
#include "worker/kernels/cpu/attention.h"

namespace tidepool {
namespace {

void RowToFloat(const KvLayout& layout, const char* row, float* out) {
  if (layout.type == KvType::kF16) {
    HalfToFloat(reinterpret_cast<const uint16_t*>(row), 2 * layout.head_dim, out);
  } else {
    std::memcpy(out, row, layout.row_bytes());
  }
}

void RowFromFloat(const KvLayout& layout, const float* in, char* row) {
  if (layout.type == KvType::kF16) {
    FloatToHalf(in, 2 * layout.head_dim, reinterpret_cast<uint16_t*>(row));
  } else {
    std::memcpy(row, in, layout.row_bytes());
  }
}

// Slots of the rows that the policy keeps, by ascending position.
std::vector<int32_t> Candidates(const HeadRows& head) {
  std::vector<int32_t> slots;
  slots.reserve(head.rows());
  for (int32_t slot : head.order()) {
    if (head.kind(slot) == RowKind::kKept) slots.push_back(slot);
  }
  return slots;
}

int32_t Budget(const CompressionSpec& spec, int32_t tokens) {
  if (spec.budget_tokens > 0) return spec.budget_tokens;
  return static_cast<int32_t>(std::ceil(spec.budget_fraction * tokens - 1e-9));
}

double RecallShare(const CompressionSpec& spec) {
  return spec.recall.mode == RecallMode::kOff ? 0.0 : spec.recall.share;
}

}  // namespace

Compressor::Compressor(const KvLayout& layout, int query_heads, const CompressionSpec& spec)
    : layout_(layout), group_(query_heads / layout.kv_heads), spec_(spec), merge_(layout.layers) {}

int32_t Compressor::KeptRows(const CompressionSpec& spec, int32_t tokens) {
  if (spec.schedule == Schedule::kNever) return tokens;
  const int32_t budget = Budget(spec, tokens);
  const int32_t kept = budget - static_cast<int32_t>(budget * RecallShare(spec));
  return std::max<int32_t>(kept, LeastKeptRows(spec));
}

int32_t Compressor::RecallSlots(const CompressionSpec& spec, int32_t tokens) {
  if (spec.schedule == Schedule::kNever || spec.recall.mode == RecallMode::kOff) return 0;
  if (spec.recall.rows > 0) return spec.recall.rows;
  return std::max(1, static_cast<int32_t>(Budget(spec, tokens) * RecallShare(spec)));
}

int32_t Compressor::MostKeptRows(const CompressionSpec& spec, int32_t tokens) {
  // Dense layers keep everything, and unequal layer budgets can give one layer all.
  if (!spec.dense_layers.empty() || spec.layer_budget != LayerBudgetRule::kUniform) return tokens;
  return KeptRows(spec, tokens);
}

int32_t Compressor::ReusablePrefix(const CompressionSpec& spec, int32_t tokens) {
  switch (spec.score) {
    case ScoreRule::kNone:
    case ScoreRule::kPosition: return std::max(0, tokens - 1);
    case ScoreRule::kWindow: return std::max(0, tokens - spec.window_tokens);
    default: return 0;
  }
}

void Compressor::AtPrefillEnd(Backend& backend, SequenceRows& rows, const QueryRing* ring, int32_t tokens) {
  if (!compresses()) return;
  LayerBudgetInput input;
  input.layers = layout_.layers;
  input.tokens = tokens;
  input.kept_rows = KeptRows(spec_, tokens);
  std::vector<double> concentration;
  if (spec_.layer_budget == LayerBudgetRule::kVariance) {
    concentration.resize(layout_.layers);
    backend.ParallelFor(layout_.layers, [&](int64_t layer) {
      std::vector<std::vector<float>> sums;
      for (int kv_head = 0; kv_head < layout_.kv_heads; ++kv_head) {
        const HeadRows& head = rows.head(static_cast<int>(layer), kv_head);
        const std::vector<int32_t> slots = Candidates(head);
        for (const std::vector<float>& by_slot : head.column_sums()) {
          std::vector<float>& sum = sums.emplace_back();
          for (int32_t slot : slots) sum.push_back(by_slot[slot]);
        }
      }
      std::vector<absl::Span<const float>> views(sums.begin(), sums.end());
      concentration[layer] = views[0].size() >= 2 ? VarianceConcentration(views) : 0.0;
    });
    input.variance_concentration = concentration;
  }
  budgets_ = LayerBudgets(spec_, input);
  for (int layer = 0; layer < layout_.layers; ++layer) CompressLayer(backend, rows, layer, ring);
  for (int layer = 0; layer < layout_.layers; ++layer) {
    for (int kv_head = 0; kv_head < layout_.kv_heads; ++kv_head) backend.Repack(rows, layer, kv_head);
  }
}

void Compressor::AfterStep(Backend& backend, SequenceRows& rows) {
  if (spec_.schedule != Schedule::kPrefillAndStep || budgets_.empty()) return;
  for (int layer = 0; layer < layout_.layers; ++layer) CompressLayer(backend, rows, layer, nullptr);
}

std::vector<float> Compressor::Scores(Backend& backend, const SequenceRows& rows, int layer, int kv_head,
                                      const QueryRing* ring, absl::Span<const int32_t> candidates, int past) const {
  const HeadRows& head = rows.head(layer, kv_head);
  std::vector<float> scores;
  switch (spec_.score) {
    case ScoreRule::kColumn:
      scores.reserve(candidates.size());
      for (int32_t slot : candidates) scores.push_back(head.ColumnSum(slot));
      return scores;
    case ScoreRule::kWindow: {
      // Probabilities of the last queries over everything resident; only the policy's own past rows are scored.
      TIDEPOOL_CHECK(ring != nullptr);
      const int window = ring->tokens(layer);
      const absl::Span<const int32_t> order = head.order();
      const int32_t newest = head.position(order.back());
      std::vector<const float*> queries;
      std::vector<int32_t> visible;
      for (int g = 0; g < group_; ++g) {
        for (int i = 0; i < window; ++i) {
          queries.push_back(ring->Token(layer, i) + int64_t{kv_head * group_ + g} * layout_.head_dim);
          const int32_t position = newest - window + 1 + i;
          const auto end = std::upper_bound(order.begin(), order.end(), position,
                                            [&](int32_t p, int32_t slot) { return p < head.position(slot); });
          visible.push_back(std::max<int32_t>(1, static_cast<int32_t>(end - order.begin())));
        }
      }
      std::vector<float> probabilities(queries.size() * order.size());
      backend.Probabilities(rows, layer, kv_head, queries, visible, probabilities.data());
      if (candidates.size() == order.size()) {
        return WindowScores(probabilities, group_, window, static_cast<int>(order.size()), past, spec_.group_reduce,
                            spec_.pool_kernel, spec_.pooling);
      }
      std::vector<float> own;  // without the columns of recalled rows
      own.reserve(queries.size() * candidates.size());
      for (size_t q = 0; q < queries.size(); ++q) {
        for (size_t i = 0; i < order.size(); ++i) {
          if (head.kind(order[i]) == RowKind::kKept) own.push_back(probabilities[q * order.size() + i]);
        }
      }
      return WindowScores(own, group_, window, static_cast<int>(candidates.size()), past, spec_.group_reduce,
                          spec_.pool_kernel, spec_.pooling);
    }
    default: return scores;
  }
}

void Compressor::CompressLayer(Backend& backend, SequenceRows& rows, int layer, const QueryRing* ring) {
  const LayerBudget& budget = budgets_[layer];
  if (budget.dense) return;
  const int heads = layout_.kv_heads;
  std::vector<std::vector<int32_t>> candidates(heads), kept(heads), evicted(heads);
  std::vector<std::vector<float>> scores(heads);
  bool over = false;
  for (int kv_head = 0; kv_head < heads; ++kv_head) {
    const HeadRows& head = rows.head(layer, kv_head);
    over = over || head.rows() - head.recalled_rows() > budget.rows.total();
  }
  if (!over) return;
  auto select = [&](int64_t kv_head) {
    candidates[kv_head] = Candidates(rows.head(layer, static_cast<int>(kv_head)));
    const int count = static_cast<int>(candidates[kv_head].size());
    if (count <= budget.rows.total()) return;
    scores[kv_head] =
        Scores(backend, rows, layer, static_cast<int>(kv_head), ring, candidates[kv_head], count - budget.rows.recent);
  };
  if (ring != nullptr) {
    backend.ParallelFor(heads, select);
  } else {
    for (int kv_head = 0; kv_head < heads; ++kv_head) select(kv_head);  // too little work to share
  }
  const std::vector<RowBudget> of_heads = HeadBudgets(spec_, budget.rows, scores);
  for (int kv_head = 0; kv_head < heads; ++kv_head) {
    const Selection selection =
        SelectRows(static_cast<int>(candidates[kv_head].size()), scores[kv_head], of_heads[kv_head]);
    for (int32_t i : selection.kept) kept[kv_head].push_back(candidates[kv_head][i]);
    for (int32_t i : selection.evicted) evicted[kv_head].push_back(candidates[kv_head][i]);
  }
  if (spec_.fate == Fate::kMerge) Merge(backend, rows, layer, kept, evicted);
  for (int kv_head = 0; kv_head < heads; ++kv_head) {
    HeadRows& head = rows.head(layer, kv_head);
    for (int32_t slot : evicted[kv_head]) head.Remove(slot);
    counters_.evicted_rows += static_cast<int64_t>(evicted[kv_head].size());
  }
  compressed_ = true;
}

void Compressor::Merge(Backend& backend, SequenceRows& rows, int layer, absl::Span<const std::vector<int32_t>> kept,
                       absl::Span<const std::vector<int32_t>> evicted) {
  const int heads = layout_.kv_heads, head_dim = layout_.head_dim;
  const size_t count = evicted[0].size();
  for (const std::vector<int32_t>& slots : evicted) TIDEPOOL_CHECK(slots.size() == count);  // uniform head budgets
  // Keys and values apart, in float32.
  struct Rows {
    std::vector<float> keys, values;
  };
  auto read = [&](int kv_head, const std::vector<int32_t>& slots) {
    Rows out;
    std::string raw(slots.size() * layout_.row_bytes(), '\0');
    backend.ReadRows(rows, layer, kv_head, slots, raw.data());
    std::vector<float> row(2 * head_dim);
    for (size_t i = 0; i < slots.size(); ++i) {
      RowToFloat(layout_, raw.data() + i * layout_.row_bytes(), row.data());
      out.keys.insert(out.keys.end(), row.begin(), row.begin() + head_dim);
      out.values.insert(out.values.end(), row.begin() + head_dim, row.end());
    }
    return out;
  };
  std::vector<Rows> kept_rows(heads), evicted_rows(heads);
  std::vector<MergeHead> merge(heads);
  for (int kv_head = 0; kv_head < heads; ++kv_head) {
    kept_rows[kv_head] = read(kv_head, kept[kv_head]);
    evicted_rows[kv_head] = read(kv_head, evicted[kv_head]);
    merge[kv_head] = {kept_rows[kv_head].keys.data(), kept_rows[kv_head].values.data(),
                      static_cast<int>(kept[kv_head].size()), evicted_rows[kv_head].keys.data(),
                      evicted_rows[kv_head].values.data()};
  }
  MergeOptions options;
  options.alpha = spec_.merge_ema_alpha;
  options.beta = spec_.merge_ema_beta;
  const MergeResult result = MergeEvicted(merge, static_cast<int>(count), head_dim, options, merge_[layer]);

  std::string raw(layout_.row_bytes(), '\0');
  std::vector<float> row(2 * head_dim);
  for (int kv_head = 0; kv_head < heads; ++kv_head) {
    std::vector<int32_t> changed;
    for (size_t e = 0; e < count; ++e) {
      if (!result.merged[kv_head][e]) continue;
      ++counters_.merged_rows;
      changed.push_back(result.target[kv_head][e]);
    }
    std::sort(changed.begin(), changed.end());
    changed.erase(std::unique(changed.begin(), changed.end()), changed.end());
    for (int32_t i : changed) {
      std::copy_n(kept_rows[kv_head].keys.data() + static_cast<size_t>(i) * head_dim, head_dim, row.data());
      std::copy_n(kept_rows[kv_head].values.data() + static_cast<size_t>(i) * head_dim, head_dim,
                  row.data() + head_dim);
      RowFromFloat(layout_, row.data(), raw.data());
      const int32_t slot = kept[kv_head][i];
      backend.WriteRow(rows, layer, kv_head, slot, raw.data());
      rows.head(layer, kv_head).merged()[slot] = 1;
    }
  }
}

void Compressor::Save(ByteWriter& out) const {
  out.Put(compressed_);
  out.Put<int32_t>(static_cast<int32_t>(budgets_.size()));
  for (const LayerBudget& budget : budgets_) {
    out.Put(budget.dense);
    out.Put<int32_t>(budget.rows.sinks);
    out.Put<int32_t>(budget.rows.heavy);
    out.Put<int32_t>(budget.rows.recent);
  }
  for (const MergeState& state : merge_) out.PutVector(state.tau);
}

bool Compressor::Load(ByteReader& in) {
  compressed_ = in.Get<bool>();
  const int32_t count = in.Get<int32_t>();
  if (!in.ok() || (count != 0 && count != layout_.layers)) return false;
  budgets_.resize(count);
  for (LayerBudget& budget : budgets_) {
    budget.dense = in.Get<bool>();
    budget.rows.sinks = in.Get<int32_t>();
    budget.rows.heavy = in.Get<int32_t>();
    budget.rows.recent = in.Get<int32_t>();
    if (budget.rows.sinks < 0 || budget.rows.heavy < 0 || budget.rows.recent < 0) return false;
  }
  for (MergeState& state : merge_) state.tau = in.GetVector<double>();
  return in.ok();
}

}  // namespace tidepool
