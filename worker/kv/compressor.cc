#include "worker/kv/compressor.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "base/check.h"
#include "policies/retain/best_rows.h"
#include "policies/retain/bind_budget.h"
#include "policies/retain/captured_mass.h"
#include "policies/retain/head_budget.h"
#include "policies/retain/lazy_layers.h"
#include "policies/retain/select.h"
#include "policies/retain/token_scores.h"
#include "worker/kv/key_index.h"
#include "worker/kv/window_attention.h"

namespace tidepool {
namespace {

// Steps between two selections, at most a share of the rows: what leaves room for them is not kept.
constexpr int kRowsForEachStep = 8;

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

// Of layers that have so many past rows, with the window of each.
std::vector<double> Shares(absl::Span<const double> past_rows, int window) {
  std::vector<double> shares;
  double all = 0;
  for (double rows : past_rows) all += rows + window;
  for (double rows : past_rows) shares.push_back((rows + window) / std::max(all, 1.0));
  return shares;
}

}  // namespace

Compressor::Compressor(const KvLayout& layout, const DeviceShape& shape, int query_heads, const CompressionSpec& spec)
    : layout_(layout),
      shape_(shape),
      group_(query_heads / layout.kv_heads),
      spec_(spec),
      method_(FindScore(spec.score)),
      merger_(layout, spec),
      in_step_(layout.layers) {
  if (method_ == nullptr) return;
  for (int i = 0; i < layout.layers * layout.kv_heads; ++i) scorers_.push_back(method_->MakeScorer(spec_));
}

int64_t Compressor::MostRows(const CompressionSpec& spec, const DeviceShape& shape, int64_t tokens, int64_t decoded) {
  if (spec.schedule == Schedule::kNever) return tokens * shape.heads();
  const BudgetSplit split = SplitBudget(spec, shape, tokens);
  const bool held = spec.decode_budget == DecodeBudget::kHeld;
  // Dense layers keep everything, and where nothing binds the sum unequal budgets can give one layer or head all.
  int64_t dense = 0;
  for (int layer = 0; layer < shape.layers; ++layer) dense += IsDenseLayer(spec, layer, shape.layers) ? 1 : 0;
  if (!held && (dense > 0 || spec.layer_budget != LayerBudgetRule::kUniform ||
                spec.head_budget == HeadBudgetRule::kAda || spec.head_budget == HeadBudgetRule::kNeeded)) {
    dense = shape.layers;
  }
  // What is never given up, also where the budget is less.
  const int64_t least = LeastKeptRows(spec) + 1 + split.recall;
  const int64_t floor = (dense * (tokens + split.recall) + (shape.layers - dense) * least) * shape.kv_heads;
  const int64_t rows = std::max(split.budget * shape.heads(), floor);
  return std::min(tokens * shape.heads(), rows + (held ? 0 : decoded * shape.heads()));
}

int Compressor::QueryWindow(const CompressionSpec& spec) {
  const ScoreMethod* method = FindScore(spec.score);
  const int window = method != nullptr ? method->Queries(spec) : 0;
  return spec.layer_budget == LayerBudgetRule::kLazy ? std::max(spec.lazy_last, window) : window;
}

int32_t Compressor::ReusablePrefix(const CompressionSpec& spec, int32_t tokens) {
  const ScoreMethod* method = FindScore(spec.score);
  if (NeedsColumnSums(spec) || (method != nullptr && method->follows_prompt())) return 0;
  // Of a prompt compressed chunk by chunk only what comes before the first chunk's end is as if it had been whole.
  if (spec.prefill == PrefillMode::kChunked) tokens = std::min(tokens, spec.prefill_chunk);
  const int learning = spec.recall.mode == RecallMode::kOff ? 0 : LearningQueries(spec.recall.index);
  return std::max(0, tokens - std::max({QueryWindow(spec), learning, 1}));
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

void Compressor::AfterPromptQueries(Backend& backend, const SequenceRows& rows, const QueryRing* ring, int32_t count) {
  if (PromptChunk() == 0) return;
  TIDEPOOL_CHECK(count <= PromptChunk());
  const bool first = !std::exchange(in_prompt_, true);
  backend.ParallelFor(static_cast<int64_t>(scorers_.size()), [&](int64_t i) {
    const int layer = static_cast<int>(i) / layout_.kv_heads, kv_head = static_cast<int>(i) % layout_.kv_heads;
    const ResidentHeadView view(View(backend, rows, ring), layer, kv_head, /*budget=*/0);
    scorers_[i]->OnPromptQueries(view, count, first);
  });
}

bool Compressor::WantsRepetition(const SequenceRows& rows, int32_t tokens) const {
  if (RepeatedTokens() == 0 || !compresses() || repeated_ == tokens) return false;
  const Horizon horizon = HorizonFrom(tokens);
  const int64_t each = int64_t{SplitBudget(spec_, shape_, horizon.tokens).kept} - horizon.growth;
  return KeptRows(rows) > each * shape_.heads();
}

void Compressor::AfterRepetition(Backend& backend, const SequenceRows& rows, const QueryRing& ring,
                                 const RepeatedPiece& piece, int32_t count) {
  TIDEPOOL_CHECK(RepeatedTokens() > 0 && count <= ring.window());
  backend.ParallelFor(static_cast<int64_t>(scorers_.size()), [&](int64_t i) {
    const int layer = static_cast<int>(i) / layout_.kv_heads, kv_head = static_cast<int>(i) % layout_.kv_heads;
    const ResidentHeadView view(View(backend, rows, &ring), layer, kv_head, /*budget=*/0);
    scorers_[i]->OnRepetition(view, piece, count);
  });
  repeated_ = piece.last;
}

bool Compressor::TakesRowsAtPrefillEnd() const {
  if (!compressed_ || spec_.fate != Fate::kDrop || (spec_.schedule == Schedule::kFirstStep && !held())) return false;
  return method_ == nullptr || !(method_->layer_wide() || (method_->keeps_row_state() && method_->follows_prompt()));
}

bool Compressor::TakesRowsAfterStep() const {
  if (!compressed_ || spec_.fate != Fate::kDrop || !(held() || evicts_each_step())) return false;
  return method_ == nullptr || !(method_->layer_wide() || method_->keeps_row_state());
}

void Compressor::AtPrefillEnd(Backend& backend, SequenceRows& rows, const QueryRing* ring, int32_t tokens) {
  if (!compresses()) return;
  in_prompt_ = false;
  StopWindow(rows);
  const Horizon horizon = HorizonFrom(tokens);
  if (spec_.schedule == Schedule::kFirstStep && (!held() || Fits(rows, tokens + 1, 1))) {
    first_step_due_ = budgets_.empty();
  } else {
    CompressAll(backend, rows, ring, tokens, horizon, Moment::kPrompt);
    StartWindow(backend, rows, tokens);
  }
}

void Compressor::AtChunkEnd(Backend& backend, SequenceRows& rows, const QueryRing* ring, int32_t tokens,
                            int32_t prompt_tokens) {
  if (!compresses()) return;
  StopWindow(rows);
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
  if (held() && evicts_each_step() && found_.empty()) SetBudgets(HorizonFrom(tokens), tokens, {});
  CompressLayers(backend, rows, ring, Moment::kStep, held());
  found_.clear();
  if (!held()) return;
  if (SelectsAfterStep(rows, tokens)) {
    CompressAll(backend, rows, ring, tokens, HorizonFrom(tokens), Moment::kAgain);
    StopWindow(rows);
  } else if (evicts_each_step()) {
    TidyPages(backend, rows, 1, Moment::kStep);
  }
  StartWindow(backend, rows, tokens);
}

void Compressor::TidyPages(Backend& backend, SequenceRows& rows, int32_t growth, Moment moment) const {
  std::vector<Backend::HeadAt> heads;
  for (int layer = 0; layer < layout_.layers; ++layer) {
    for (int kv_head = 0; kv_head < layout_.kv_heads; ++kv_head) {
      const HeadRows& head = rows.head(layer, kv_head);
      const int32_t most = head.rows() - head.recalled_rows() + recall_slots_ +
                           (budgets_[layer].each_step ? std::min(growth, 1) : growth);
      // Slots in the order of their positions are quickest to attend to; rows of recall come and go in between.
      const bool settles = moment == Moment::kAgain && !head.in_order() && head.recalled_rows() == 0 &&
                           head.groups().empty() && !budgets_[layer].each_step;
      if (settles || head.slots() >= most + kPageSlots) heads.push_back({layer, kv_head});
    }
  }
  backend.RepackAll(rows, heads);
}

std::vector<double> Compressor::VarianceConcentrations(Backend& backend, const SequenceRows& rows) const {
  std::vector<double> concentration(layout_.layers);
  backend.ParallelFor(layout_.layers, [&](int64_t layer) {
    std::vector<std::vector<float>> sums;
    for (int kv_head = 0; kv_head < layout_.kv_heads; ++kv_head) {
      const HeadRows& head = rows.head(static_cast<int>(layer), kv_head);
      const std::vector<int32_t> slots = KeptSlots(head);
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
    const AttentionRows attention = AttentionOfLast(backend, rows, layer, kv_head, group_, ring, spec_.lazy_last);
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
  input.layer_weights = layer_weights_;
  input.lazy_layers = lazy_layers;
  std::vector<int> before;
  for (const LayerBudget& budget : budgets_) before.push_back(budget.rows.total());
  budgets_ = LayerBudgets(spec_, input);
  recall_slots_ = split.recall;
  if (!horizon.binds) return;
  int64_t rows = int64_t{split.kept} * layout_.layers;
  for (const LayerBudget& budget : budgets_) rows -= budget.each_step ? std::min(horizon.growth, 1) : horizon.growth;
  if (!BindLayerBudgets(spec_, seen, rows, before, budgets_)) counters_.over_budget = true;
}

void Compressor::CompressAll(Backend& backend, SequenceRows& rows, const QueryRing* ring, int32_t seen,
                             const Horizon& horizon, Moment moment) {
  std::vector<int> lazy;
  if (spec_.layer_budget == LayerBudgetRule::kVariance && moment == Moment::kPrompt) {
    layer_weights_ = VarianceConcentrations(backend, rows);
  } else if (moment == Moment::kPrompt &&
             (spec_.layer_budget == LayerBudgetRule::kEqualMass || spec_.layer_budget == LayerBudgetRule::kBestRows)) {
    const BudgetSplit split = SplitBudget(spec_, shape_, horizon.tokens);
    layer_weights_ = LayerShares(backend, rows, ring, std::max(split.kept - horizon.growth, LeastKeptRows(spec_)));
  } else if (spec_.layer_budget == LayerBudgetRule::kLazy) {
    lazy =
        ChooseLazyLayers(backend, rows, *ring, seen, SplitBudget(spec_, shape_, horizon.tokens).kept - horizon.growth);
  }
  SetBudgets(horizon, seen, lazy);
  CompressLayers(backend, rows, ring, moment, horizon.binds);
  if (moment == Moment::kAgain) return TidyPages(backend, rows, horizon.growth, moment);
  std::vector<Backend::HeadAt> heads;
  for (int layer = 0; layer < layout_.layers; ++layer) {
    for (int kv_head = 0; kv_head < layout_.kv_heads; ++kv_head) heads.push_back({layer, kv_head});
  }
  backend.RepackAll(rows, heads);
}

std::vector<double> Compressor::LayerShares(Backend& backend, const SequenceRows& rows, const QueryRing* ring,
                                            int32_t kept_rows) {
  const int window = method_->Window(spec_);
  std::vector<std::vector<float>> of_heads(scorers_.size());
  std::vector<std::vector<int32_t>> positions(scorers_.size());
  backend.ParallelFor(static_cast<int64_t>(scorers_.size()), [&](int64_t i) {
    const int layer = static_cast<int>(i) / layout_.kv_heads, kv_head = static_cast<int>(i) % layout_.kv_heads;
    const ResidentHeadView view(View(backend, rows, ring), layer, kv_head, kept_rows);
    const int past = std::max(0, view.rows() - window);
    scorers_[i]->OnPrompt(view);
    of_heads[i] = scorers_[i]->Scores(view, past);
    of_heads[i].resize(past);
    for (int row = 0; row < past; ++row) positions[i].push_back(view.position(row));
  });
  const int64_t past_rows = std::max<int64_t>(0, int64_t{kept_rows} - window) * layout_.layers;
  const int least = LeastKeptRows(spec_) - window;
  std::vector<std::vector<float>> of_layers(layout_.layers);
  std::vector<double> rows_of;  // of a kv head on average
  if (spec_.layer_budget == LayerBudgetRule::kBestRows) {
    for (size_t i = 0; i < of_heads.size(); ++i) {
      std::vector<float>& of_layer = of_layers[i / layout_.kv_heads];
      of_layer.insert(of_layer.end(), of_heads[i].begin(), of_heads[i].end());
    }
    for (int best : RowsOfBest(of_layers, past_rows * layout_.kv_heads, least * layout_.kv_heads)) {
      rows_of.push_back(static_cast<double>(best) / layout_.kv_heads);
    }
    return Shares(rows_of, window);
  }
  // Mean over the heads of a layer; a row that a head has evicted has no score there.
  for (int layer = 0; layer < layout_.layers; ++layer) {
    std::map<int32_t, double> sums;
    for (int i = layer * layout_.kv_heads; i < (layer + 1) * layout_.kv_heads; ++i) {
      for (size_t row = 0; row < positions[i].size(); ++row) {
        if (std::isfinite(of_heads[i][row])) sums[positions[i][row]] += of_heads[i][row];
      }
    }
    for (const auto& [position, sum] : sums) of_layers[layer].push_back(static_cast<float>(sum / layout_.kv_heads));
  }
  for (int equal : RowsOfEqualMass(of_layers, past_rows, least)) rows_of.push_back(equal);
  return Shares(rows_of, window);
}

void Compressor::CompressLayers(Backend& backend, SequenceRows& rows, const QueryRing* ring, Moment moment,
                                bool binds) {
  std::vector<int> layers;
  for (int layer = 0; layer < layout_.layers; ++layer) {
    if (budgets_[layer].dense || (moment == Moment::kStep && !budgets_[layer].each_step)) continue;
    if (moment == Moment::kStep && !found_.empty()) {
      LayerInStep& in_step = in_step_[layer];
      // Few layers: it is not worth waking threads.
      if (in_step.done || GoByFound(backend, rows, layer, in_step.work)) {
        Count(in_step.work);
        continue;
      }
    }
    layers.push_back(layer);
  }
  std::vector<LayerWork> work(layers.size());
  // A mixture of a packed row takes a page, and those are everybody's.
  const bool merges = spec_.fate != Fate::kDrop;
  const bool at_once =
      backend.heads_at_once() && (!merges || (merger_.layers_at_once() && spec_.kv_precision == KvPrecision::kF16));
  auto compress = [&](int64_t i) { work[i] = CompressLayer(backend, rows, layers[i], ring, moment, binds, at_once); };
  if (at_once) {
    backend.ParallelFor(static_cast<int64_t>(layers.size()), compress);
  } else {
    for (size_t i = 0; i < layers.size(); ++i) compress(static_cast<int64_t>(i));
  }
  for (const LayerWork& of_layer : work) Count(of_layer);
}

void Compressor::Count(const LayerWork& work) {
  counters_.evicted_rows += work.evicted_rows;
  counters_.merged_rows += work.merged_rows;
  compressed_ = compressed_ || work.evicted_rows > 0;
}

Compressor::LayerWork Compressor::CompressLayer(Backend& backend, SequenceRows& rows, int layer, const QueryRing* ring,
                                                Moment moment, bool binds, bool at_once) {
  LayerWork work;
  for (int kv_head = 0; kv_head < layout_.kv_heads && !lowest_.empty(); ++kv_head) {
    lowest_[layer * layout_.kv_heads + kv_head].Clear();
  }
  const LayerBudget& budget = budgets_[layer];
  const ScoreMethod& method = *budget.score;
  const int heads = layout_.kv_heads;
  bool over = method.leaves_room();
  for (int kv_head = 0; kv_head < heads; ++kv_head) {
    const HeadRows& head = rows.head(layer, kv_head);
    over = over || head.rows() - head.recalled_rows() > budget.rows.total();
  }
  // Selecting again, what acts at every step has followed the step already.
  const bool follows = method.follows_steps() && !(moment == Moment::kAgain && budget.each_step);
  if (!over && !follows) return work;
  std::vector<std::optional<ResidentHeadView>> views(heads);
  std::vector<std::vector<float>> scores(heads);
  auto score = [&](int64_t kv_head) {
    const ResidentHeadView& view =
        views[kv_head].emplace(View(backend, rows, ring), layer, static_cast<int>(kv_head), budget.rows.total());
    HeadScorer* scorer = ScorerOf(budget, layer, static_cast<int>(kv_head));
    if (scorer == nullptr) return;
    if (follows && moment == Moment::kStep) {
      scorer->OnStep(view);
    } else if (follows) {
      scorer->OnPrompt(view);
    }
    // Ada-KV compares all heads of a layer; else only those that are over matter.
    const bool all = spec_.head_budget == HeadBudgetRule::kAda || method.leaves_room();
    if ((!all && view.rows() <= budget.rows.total()) || view.rows() <= budget.rows.recent || !over) return;
    // Past the last `recent` rows; some methods have scores of all.
    const int past = view.rows() - budget.rows.recent;
    scores[kv_head] = scorer->Scores(view, past);
    scores[kv_head].resize(past);
  };
  if (moment != Moment::kStep && !at_once) {
    backend.ParallelFor(heads, score);
  } else {
    for (int kv_head = 0; kv_head < heads; ++kv_head) score(kv_head);
  }
  if (!over) return work;
  if (method.layer_wide()) {
    std::vector<const HeadView*> of_layer;
    for (const auto& view : views) of_layer.push_back(&*view);
    std::fill(scores.begin(), scores.end(), method.LayerScores(of_layer));
  }
  std::vector<RowBudget> of_heads = HeadBudgets(spec_, budget.rows, scores);
  if (binds) BindHeadBudgets(budget.rows, of_heads);
  std::vector<std::vector<int32_t>> kept(heads), evicted(heads);
  size_t most_evicted = 0;
  for (int kv_head = 0; kv_head < heads; ++kv_head) {
    const std::vector<int32_t>& slots = views[kv_head]->slots();
    const Selection selection = SelectRows(static_cast<int>(slots.size()), scores[kv_head], of_heads[kv_head]);
    for (int32_t i : selection.kept) kept[kv_head].push_back(slots[i]);
    for (int32_t i : selection.evicted) evicted[kv_head].push_back(slots[i]);
    most_evicted = std::max(most_evicted, evicted[kv_head].size());
    if (HeadScorer* scorer = ScorerOf(budget, layer, kv_head); scorer != nullptr) scorer->Keep(selection.kept);
  }
  if (most_evicted == 0) return work;
  if (spec_.fate == Fate::kMerge || (spec_.fate == Fate::kMergeNearest && moment == Moment::kPrompt)) {
    work.merged_rows = merger_.Merge(backend, rows, layer, std::move(kept), evicted);
  }
  for (int kv_head = 0; kv_head < heads; ++kv_head) {
    rows.head(layer, kv_head).RemoveAll(evicted[kv_head]);
    work.evicted_rows += static_cast<int64_t>(evicted[kv_head].size());
  }
  return work;
}

void Compressor::Save(ByteWriter& out) const {
  out.Put(compressed_);
  out.Put(first_step_due_);
  out.Put<int32_t>(recall_slots_);
  out.PutVector(layer_weights_);
  if (RepeatedTokens() > 0) out.Put<int32_t>(repeated_);
  out.Put<int32_t>(static_cast<int32_t>(budgets_.size()));
  for (const LayerBudget& budget : budgets_) {
    out.Put(budget.dense);
    out.Put(budget.lazy);
    out.Put(budget.each_step);
    out.PutBytes(budget.score->name());
    out.Put<int32_t>(budget.rows.sinks);
    out.Put<int32_t>(budget.rows.heavy);
    out.Put<int32_t>(budget.rows.recent);
  }
  merger_.Save(out);
  for (const auto& scorer : scorers_) {
    if (scorer != nullptr) scorer->Save(out);
  }
}

bool Compressor::Load(ByteReader& in) {
  compressed_ = in.Get<bool>();
  first_step_due_ = in.Get<bool>();
  recall_slots_ = in.Get<int32_t>();
  layer_weights_ = in.GetVector<double>();
  if (RepeatedTokens() > 0) repeated_ = in.Get<int32_t>();
  if (repeated_ < 0) return false;
  if (recall_slots_ < 0 || (!layer_weights_.empty() && static_cast<int>(layer_weights_.size()) != layout_.layers)) {
    return false;
  }
  const int32_t count = in.Get<int32_t>();
  if (!in.ok() || (count != 0 && count != layout_.layers)) return false;
  budgets_.resize(count);
  for (LayerBudget& budget : budgets_) {
    budget.dense = in.Get<bool>();
    budget.lazy = in.Get<bool>();
    budget.each_step = in.Get<bool>();
    budget.score = FindScore(in.GetBytes());
    if (budget.score == nullptr) return false;
    budget.rows.sinks = in.Get<int32_t>();
    budget.rows.heavy = in.Get<int32_t>();
    budget.rows.recent = in.Get<int32_t>();
    if (budget.rows.sinks < 0 || budget.rows.heavy < 0 || budget.rows.recent < 0) return false;
  }
  merger_.Load(in);
  for (const auto& scorer : scorers_) {
    if (scorer != nullptr) scorer->Load(in);
  }
  return in.ok();
}

}  // namespace tidepool
