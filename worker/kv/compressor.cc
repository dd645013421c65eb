#include "worker/kv/compressor.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "base/check.h"
#include "policies/retain/bind_budget.h"
#include "policies/retain/head_budget.h"
#include "policies/retain/lazy_layers.h"
#include "policies/retain/select.h"
#include "policies/retain/token_scores.h"
#include "worker/kv/key_index.h"
#include "worker/kv/window_attention.h"

namespace tidepool {
namespace {

// Slots of the rows that the policy keeps, by ascending position.
std::vector<int32_t> Candidates(const HeadRows& head) {
  std::vector<int32_t> slots;
  slots.reserve(head.rows());
  for (int32_t slot : head.order()) {
    if (head.kind(slot) == RowKind::kKept) slots.push_back(slot);
  }
  return slots;
}

// Steps between two selections, at most a share of the rows: what leaves room for them is not kept.
constexpr int kRowsForEachStep = 8;

float GroupColumnSum(const HeadRows& head, int32_t slot, GroupReduce reduce) {
  if (reduce == GroupReduce::kMean) return head.ColumnSum(slot);
  float result = 0;  // sums of probabilities
  for (const std::vector<float>& sums : head.column_sums()) {
    result = reduce == GroupReduce::kMax ? std::max(result, sums[slot]) : result + sums[slot];
  }
  return result;
}

int64_t KeptRows(const SequenceRows& rows) {
  int64_t kept = 0;
  for (int layer = 0; layer < rows.layers(); ++layer) {
    for (int kv_head = 0; kv_head < rows.kv_heads(); ++kv_head) {
      const HeadRows& head = rows.head(layer, kv_head);
      kept += head.rows() - head.recalled_rows();
    }
  }
  return kept;
}

}  // namespace

Compressor::Compressor(const KvLayout& layout, const DeviceShape& shape, int query_heads, const CompressionSpec& spec)
    : layout_(layout),
      shape_(shape),
      group_(query_heads / layout.kv_heads),
      spec_(spec),
      merge_(layout.layers),
      aha_(spec.score == ScoreRule::kAha ? layout.layers * layout.kv_heads : 0,
           AhaScores(spec.aha_recent, spec.aha_value_kernel)) {}

int64_t Compressor::MostRows(const CompressionSpec& spec, const DeviceShape& shape, int64_t tokens, int64_t decoded) {
  if (spec.schedule == Schedule::kNever) return tokens * shape.heads();
  const BudgetSplit split = SplitBudget(spec, shape, tokens);
  const bool held = spec.decode_budget == DecodeBudget::kHeld;
  // Dense layers keep everything, and where nothing binds the sum unequal budgets can give one layer or head all.
  int64_t dense = 0;
  for (int layer = 0; layer < shape.layers; ++layer) dense += IsDenseLayer(spec, layer, shape.layers) ? 1 : 0;
  if (!held &&
      (dense > 0 || spec.layer_budget != LayerBudgetRule::kUniform || spec.head_budget == HeadBudgetRule::kAda)) {
    dense = shape.layers;
  }
  // What is never given up, also where the budget is less.
  const int64_t least = LeastKeptRows(spec) + 1 + split.recall;
  const int64_t floor = (dense * (tokens + split.recall) + (shape.layers - dense) * least) * shape.kv_heads;
  const int64_t rows = std::max(split.budget * shape.heads(), floor);
  return std::min(tokens * shape.heads(), rows + (held ? 0 : decoded * shape.heads()));
}

int Compressor::query_window() const {
  switch (spec_.score) {
    case ScoreRule::kWindow: return spec_.window_tokens;
    case ScoreRule::kLastRow: return 1;
    case ScoreRule::kAha: return spec_.aha_recent;
    default: return spec_.layer_budget == LayerBudgetRule::kLazy ? std::max(spec_.lazy_last, spec_.window_tokens) : 0;
  }
}

int32_t Compressor::ReusablePrefix(const CompressionSpec& spec, int32_t tokens) {
  const int window = Compressor(KvLayout{.layers = 1, .kv_heads = 1, .head_dim = 1}, {}, 1, spec).query_window();
  if (spec.score == ScoreRule::kColumn) return 0;
  // Of a prompt compressed chunk by chunk only what comes before the first chunk's end is as if it had been whole.
  if (spec.prefill == PrefillMode::kChunked) tokens = std::min(tokens, spec.prefill_chunk);
  const int learning = spec.recall.mode == RecallMode::kOff ? 0 : LearningQueries(spec.recall.index);
  return std::max(0, tokens - std::max({window, learning, 1}));
}

Compressor::Horizon Compressor::HorizonFrom(int32_t tokens) const {
  if (!held()) return {.tokens = tokens};
  Horizon horizon{.tokens = tokens + 1, .growth = 1, .binds = true};
  const int32_t kept = SplitBudget(spec_, shape_, horizon.tokens).kept;
  if (evicts_each_step() || kept > tokens) return horizon;  // nothing need go for the next step
  horizon.growth = std::min({spec_.decode_interval, kept / kRowsForEachStep, kept - LeastKeptRows(spec_)});
  horizon.growth = std::max(horizon.growth, 1);
  horizon.tokens = tokens + horizon.growth;
  return horizon;
}

bool Compressor::Fits(const SequenceRows& rows, int32_t tokens, int32_t growth) const {
  const BudgetSplit split = SplitBudget(spec_, shape_, tokens);
  const int64_t each = int64_t{split.budget} - split.index - recall_slots_ - growth;
  return KeptRows(rows) <= each * shape_.heads();
}

void Compressor::AtPrefillEnd(Backend& backend, SequenceRows& rows, const QueryRing* ring, int32_t tokens) {
  if (!compresses()) return;
  const Horizon horizon = HorizonFrom(tokens);
  if (spec_.schedule == Schedule::kFirstStep && (!held() || Fits(rows, tokens + 1, 1))) {
    first_step_due_ = budgets_.empty();
  } else {
    CompressAll(backend, rows, ring, tokens, horizon, Moment::kPrompt);
  }
}

void Compressor::AtChunkEnd(Backend& backend, SequenceRows& rows, const QueryRing* ring, int32_t tokens,
                            int32_t prompt_tokens) {
  if (!compresses()) return;
  Horizon horizon = HorizonFrom(prompt_tokens);
  horizon.binds = true;
  if (spec_.schedule == Schedule::kFirstStep && Fits(rows, horizon.tokens, 0)) return;
  CompressAll(backend, rows, ring, tokens, horizon, Moment::kPrompt);
}

void Compressor::AfterStep(Backend& backend, SequenceRows& rows, const QueryRing* ring, int32_t tokens) {
  if (std::exchange(first_step_due_, false)) {
    return CompressAll(backend, rows, ring, tokens, HorizonFrom(tokens), Moment::kPrompt);
  }
  if (budgets_.empty()) return;
  if (held() && evicts_each_step()) SetBudgets(HorizonFrom(tokens), tokens, {});
  for (size_t layer = 0; layer < budgets_.size(); ++layer) {
    if (budgets_[layer].each_step) CompressLayer(backend, rows, static_cast<int>(layer), ring, Moment::kStep, held());
  }
  if (!held()) return;
  if (!evicts_each_step() && !Fits(rows, tokens + 1, 1)) {
    CompressAll(backend, rows, ring, tokens, HorizonFrom(tokens), Moment::kAgain);
  } else if (evicts_each_step()) {
    ReleasePages(backend, rows, 1);
  }
}

void Compressor::ReleasePages(Backend& backend, SequenceRows& rows, int32_t growth) const {
  for (int layer = 0; layer < layout_.layers; ++layer) {
    for (int kv_head = 0; kv_head < layout_.kv_heads; ++kv_head) {
      const HeadRows& head = rows.head(layer, kv_head);
      const int32_t most = head.rows() - head.recalled_rows() + recall_slots_ +
                           (budgets_[layer].each_step ? std::min(growth, 1) : growth);
      if (head.slots() >= most + kPageSlots) backend.Repack(rows, layer, kv_head);
    }
  }
}

std::vector<double> Compressor::VarianceConcentrations(Backend& backend, const SequenceRows& rows) const {
  std::vector<double> concentration(layout_.layers);
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
  return concentration;
}

std::vector<int> Compressor::ChooseLazyLayers(Backend& backend, const SequenceRows& rows, const QueryRing& ring,
                                              int32_t tokens, int32_t kept_rows) const {
  std::vector<int> lazy;
  if (!budgets_.empty()) {  // a layer that was cut stays lazy
    for (int layer = 0; layer < layout_.layers; ++layer) {
      if (budgets_[layer].lazy) lazy.push_back(layer);
    }
    if (!lazy.empty()) return lazy;
  }
  // Nothing to cut yet, nothing decided.
  if (tokens <= spec_.lazy_sinks + spec_.lazy_recent && kept_rows >= tokens) return lazy;
  std::vector<double> of_heads(static_cast<size_t>(layout_.layers) * layout_.kv_heads);
  backend.ParallelFor(static_cast<int64_t>(of_heads.size()), [&](int64_t i) {
    const int layer = static_cast<int>(i) / layout_.kv_heads, kv_head = static_cast<int>(i) % layout_.kv_heads;
    const WindowAttention attention = AttentionOfLast(backend, rows, layer, kv_head, group_, ring, spec_.lazy_last);
    of_heads[i] = LazyRatio(attention.probabilities, attention.keys, spec_.lazy_sinks, spec_.lazy_recent);
  });
  std::vector<double> ratios(layout_.layers);  // mean over query heads: each kv head has as many
  for (size_t i = 0; i < of_heads.size(); ++i) ratios[i / layout_.kv_heads] += of_heads[i] / layout_.kv_heads;
  return LazyLayers(spec_, ratios);
}

void Compressor::SetBudgets(const Horizon& horizon, int32_t seen, absl::Span<const int> lazy_layers) {
  const BudgetSplit split = SplitBudget(spec_, shape_, horizon.tokens);
  LayerBudgetInput input;
  input.layers = layout_.layers;
  input.tokens = seen;
  input.kept_rows = std::max(split.kept - horizon.growth, LeastKeptRows(spec_));
  input.variance_concentration = concentration_;
  input.lazy_layers = lazy_layers;
  budgets_ = LayerBudgets(spec_, input);
  recall_slots_ = split.recall;
  if (!horizon.binds) return;
  int64_t rows = int64_t{split.kept} * layout_.layers;
  for (const LayerBudget& budget : budgets_) rows -= budget.each_step ? std::min(horizon.growth, 1) : horizon.growth;
  if (!BindLayerBudgets(spec_, seen, rows, budgets_)) counters_.over_budget = true;
}

void Compressor::CompressAll(Backend& backend, SequenceRows& rows, const QueryRing* ring, int32_t seen,
                             const Horizon& horizon, Moment moment) {
  std::vector<int> lazy;
  if (spec_.layer_budget == LayerBudgetRule::kVariance && moment == Moment::kPrompt) {
    concentration_ = VarianceConcentrations(backend, rows);
  } else if (spec_.layer_budget == LayerBudgetRule::kLazy) {
    lazy =
        ChooseLazyLayers(backend, rows, *ring, seen, SplitBudget(spec_, shape_, horizon.tokens).kept - horizon.growth);
  }
  SetBudgets(horizon, seen, lazy);
  for (int layer = 0; layer < layout_.layers; ++layer) CompressLayer(backend, rows, layer, ring, moment, horizon.binds);
  if (moment == Moment::kAgain) return ReleasePages(backend, rows, horizon.growth);
  for (int layer = 0; layer < layout_.layers; ++layer) {
    for (int kv_head = 0; kv_head < layout_.kv_heads; ++kv_head) backend.Repack(rows, layer, kv_head);
  }
}

std::vector<float> Compressor::LayerScores(Backend& backend, const SequenceRows& rows, int layer,
                                           const QueryRing& ring) const {
  std::vector<float> probabilities;  // [query heads][keys]
  for (int kv_head = 0; kv_head < layout_.kv_heads; ++kv_head) {
    const WindowAttention attention = AttentionOfLast(backend, rows, layer, kv_head, group_, ring, 1);
    probabilities.insert(probabilities.end(), attention.probabilities.begin(), attention.probabilities.end());
  }
  return LastRowScores(probabilities, layout_.kv_heads * group_);
}

void Compressor::UpdateAha(Backend& backend, const SequenceRows& rows, int layer, int kv_head, const QueryRing& ring,
                           absl::Span<const int32_t> candidates, bool at_prefill) {
  AhaScores& scores = aha_[layer * layout_.kv_heads + kv_head];
  const int budget = budgets_[layer].rows.total();
  auto scale = [&](int32_t position) { return static_cast<float>(AhaQueryScale(int64_t{position} + 1, budget)); };
  const WindowAttention attention =
      AttentionOfLast(backend, rows, layer, kv_head, group_, ring, at_prefill ? spec_.aha_recent : 1, scale);
  const std::vector<float> reduced = ReduceGroup(attention.probabilities, group_, spec_.group_reduce);
  if (at_prefill) {
    scores.SetPrompt(reduced, SquaredNorms(ReadValues(backend, rows, layer, kv_head, candidates), layout_.head_dim));
  } else {
    const std::vector<float> value = ReadValues(backend, rows, layer, kv_head, candidates.last(1));
    scores.Append(SquaredNorms(value, layout_.head_dim)[0], reduced);
  }
}

std::vector<float> Compressor::Scores(Backend& backend, const SequenceRows& rows, int layer, int kv_head,
                                      const QueryRing* ring, absl::Span<const int32_t> candidates, int past) const {
  const HeadRows& head = rows.head(layer, kv_head);
  std::vector<float> scores;
  switch (budgets_[layer].score) {
    case ScoreRule::kColumn:
      scores.reserve(candidates.size());
      for (int32_t slot : candidates) scores.push_back(GroupColumnSum(head, slot, spec_.group_reduce));
      return scores;
    case ScoreRule::kWindow: {
      const WindowAttention attention =
          AttentionOfLast(backend, rows, layer, kv_head, group_, *ring, spec_.window_tokens);
      return WindowScores(attention.probabilities, group_, attention.queries, attention.keys, past, spec_.group_reduce,
                          spec_.pool_kernel, spec_.pooling);
    }
    case ScoreRule::kAha: return aha_[layer * layout_.kv_heads + kv_head].Scores();
    case ScoreRule::kLastRow:  // LayerScores
    case ScoreRule::kNone:
    case ScoreRule::kPosition: return scores;
  }
  return scores;
}

void Compressor::CompressLayer(Backend& backend, SequenceRows& rows, int layer, const QueryRing* ring, Moment moment,
                               bool binds) {
  const LayerBudget& budget = budgets_[layer];
  if (budget.dense) return;
  const int heads = layout_.kv_heads;
  const bool aha = budget.score == ScoreRule::kAha;
  std::vector<std::vector<int32_t>> candidates(heads), kept(heads), evicted(heads);
  std::vector<std::vector<float>> scores(heads);
  bool over = false;
  for (int kv_head = 0; kv_head < heads; ++kv_head) {
    const HeadRows& head = rows.head(layer, kv_head);
    over = over || head.rows() - head.recalled_rows() > budget.rows.total();
  }
  // Selecting again, what evicts at every step has its scores already.
  const bool update_aha = aha && !(moment == Moment::kAgain && budget.each_step);
  if (!over && !update_aha) return;
  auto score = [&](int64_t index) {
    const int kv_head = static_cast<int>(index);
    candidates[kv_head] = Candidates(rows.head(layer, kv_head));
    const int count = static_cast<int>(candidates[kv_head].size());
    if (update_aha) UpdateAha(backend, rows, layer, kv_head, *ring, candidates[kv_head], moment != Moment::kStep);
    // Ada-KV compares all heads of a layer; else only those that are over matter.
    if (count <= budget.rows.total() && spec_.head_budget != HeadBudgetRule::kAda) return;
    if (count <= budget.rows.recent) return;
    scores[kv_head] = Scores(backend, rows, layer, kv_head, ring, candidates[kv_head], count - budget.rows.recent);
  };
  if (moment != Moment::kStep) {
    backend.ParallelFor(heads, score);
  } else {
    for (int kv_head = 0; kv_head < heads; ++kv_head) score(kv_head);  // too little work to share
  }
  if (!over) return;
  if (budget.score == ScoreRule::kLastRow) {
    std::fill(scores.begin(), scores.end(), LayerScores(backend, rows, layer, *ring));
  }
  // Scores past the last `recent` rows are the policy's; AhaKV and column sums have them for all rows.
  for (int kv_head = 0; kv_head < heads; ++kv_head) {
    const size_t past = candidates[kv_head].size() - std::min<size_t>(candidates[kv_head].size(), budget.rows.recent);
    if (scores[kv_head].size() > past) scores[kv_head].resize(past);
  }
  std::vector<RowBudget> of_heads = HeadBudgets(spec_, budget.rows, scores);
  if (binds) BindHeadBudgets(budget.rows, of_heads);
  for (int kv_head = 0; kv_head < heads; ++kv_head) {
    const Selection selection =
        SelectRows(static_cast<int>(candidates[kv_head].size()), scores[kv_head], of_heads[kv_head]);
    for (int32_t i : selection.kept) kept[kv_head].push_back(candidates[kv_head][i]);
    for (int32_t i : selection.evicted) evicted[kv_head].push_back(candidates[kv_head][i]);
    if (aha) aha_[layer * heads + kv_head].Keep(selection.kept);
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
      if (observer_ != nullptr) {
        const HeadRows& head = rows.head(layer, kv_head);
        observer_->OnMerge(layer, kv_head, head.position(evicted[kv_head][e]),
                           head.position(kept[kv_head][result.target[kv_head][e]]));
      }
    }
    std::sort(changed.begin(), changed.end());
    changed.erase(std::unique(changed.begin(), changed.end()), changed.end());
    for (int32_t i : changed) {
      std::copy_n(kept_rows[kv_head].keys.data() + static_cast<size_t>(i) * head_dim, head_dim, row.data());
      std::copy_n(kept_rows[kv_head].values.data() + static_cast<size_t>(i) * head_dim, head_dim,
                  row.data() + head_dim);
      RowFromFloat(layout_, row.data(), raw.data());
      int32_t slot = kept[kv_head][i];
      // A mixture stays at full precision: it is in no stored block.
      if (HeadRows& head = rows.head(layer, kv_head); head.is_packed(slot)) slot = head.MoveToPlain(rows.pool(), slot);
      backend.WriteRow(rows, layer, kv_head, slot, raw.data());
      rows.head(layer, kv_head).merged()[slot] = 1;
    }
  }
}

void Compressor::Save(ByteWriter& out) const {
  out.Put(compressed_);
  out.Put(first_step_due_);
  out.Put<int32_t>(recall_slots_);
  out.PutVector(concentration_);
  out.Put<int32_t>(static_cast<int32_t>(budgets_.size()));
  for (const LayerBudget& budget : budgets_) {
    out.Put(budget.dense);
    out.Put(budget.lazy);
    out.Put(budget.each_step);
    out.Put(budget.score);
    out.Put<int32_t>(budget.rows.sinks);
    out.Put<int32_t>(budget.rows.heavy);
    out.Put<int32_t>(budget.rows.recent);
  }
  for (const MergeState& state : merge_) out.PutVector(state.tau);
}

bool Compressor::Load(ByteReader& in) {
  compressed_ = in.Get<bool>();
  first_step_due_ = in.Get<bool>();
  recall_slots_ = in.Get<int32_t>();
  concentration_ = in.GetVector<double>();
  if (recall_slots_ < 0 || (!concentration_.empty() && static_cast<int>(concentration_.size()) != layout_.layers)) {
    return false;
  }
  const int32_t count = in.Get<int32_t>();
  if (!in.ok() || (count != 0 && count != layout_.layers)) return false;
  budgets_.resize(count);
  for (LayerBudget& budget : budgets_) {
    budget.dense = in.Get<bool>();
    budget.lazy = in.Get<bool>();
    budget.each_step = in.Get<bool>();
    budget.score = in.Get<ScoreRule>();
    budget.rows.sinks = in.Get<int32_t>();
    budget.rows.heavy = in.Get<int32_t>();
    budget.rows.recent = in.Get<int32_t>();
    if (budget.rows.sinks < 0 || budget.rows.heavy < 0 || budget.rows.recent < 0) return false;
  }
  for (MergeState& state : merge_) state.tau = in.GetVector<double>();
  return in.ok();
}

}  // namespace tidepool
