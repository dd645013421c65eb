// Applies a compression policy to a sequence's resident rows: gathers the scores that the policy needs from the
// backend, asks policies/retain what stays, merges and evicts. Formulas: docs/policies.md.
//
// The rows that recall brought are none of its business: they are neither scored nor evicted here.
#ifndef TIDEPOOL_WORKER_KV_COMPRESSOR_H_
#define TIDEPOOL_WORKER_KV_COMPRESSOR_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "base/bytes.h"
#include "policies/retain/budget_split.h"
#include "policies/retain/compression_spec.h"
#include "policies/retain/layer_budget.h"
#include "policies/retain/score_method.h"
#include "policies/retain/token_class.h"
#include "worker/backend/backend.h"
#include "worker/kv/head_view.h"
#include "worker/kv/lowest_rows.h"
#include "worker/kv/query_ring.h"
#include "worker/kv/resident_rows.h"
#include "worker/kv/retention_observer.h"
#include "worker/kv/row_merger.h"

namespace tidepool {

struct CompressionCounters {
  int64_t evicted_rows = 0;  // that left the device, merged ones included
  int64_t merged_rows = 0;
  bool over_budget = false;  // held, but what the policy never gives up was more than the budget
};

class Compressor {
 public:
  // shape: what rows and the recall index take on the device.
  Compressor(const KvLayout& layout, const DeviceShape& shape, int query_heads, const CompressionSpec& spec);

  bool compresses() const { return spec_.schedule != Schedule::kNever; }
  // Rows that recall brought may become the policy's now, because AtPrefillEnd, or AfterStep, selects among all of
  // them. Not where rows are merged: one that leaves a second time would be merged into others twice.
  bool TakesRowsAtPrefillEnd() const;
  bool TakesRowsAfterStep() const;
  // Rows have been evicted: what is computed from now on depends on it.
  bool compressed() const { return compressed_; }
  // Has new rows gather the attention sums that the policy needs, from the first token on.
  void KeepSums(SequenceRows& rows) const;
  // Those of decoding steps are gathered as long as the rows of that layer live.
  bool keeps_step_sums(int layer) const;
  // Last queries to remember; 0: none.
  int query_window() const { return QueryWindow(spec_); }

  // The first decoding step is to decide what stays (kFirstStep).
  bool decision_due() const { return first_step_due_; }

  // The prompt of a turn is in: layer budgets are set anew from `tokens`, and everything above them leaves. `ring`
  // holds the last queries when query_window() > 0.
  void AtPrefillEnd(Backend& backend, SequenceRows& rows, const QueryRing* ring, int32_t tokens);
  // Some of a prompt's queries are in, with their rows: the last `count` of `ring`, at most PromptChunk.
  void AfterPromptQueries(Backend& backend, const SequenceRows& rows, const QueryRing* ring, int32_t count);
  // Most queries of a prompt between two calls of AfterPromptQueries; 0: any.
  int PromptChunk() const { return method_ != nullptr && method_->follows_prompt() ? method_->Queries(spec_) : 0; }
  // ScoreMethod::RepeatedTokens, 0: none; how many leading tokens have been repeated so far; whether the end of a
  // prompt of `tokens` would evict, so that the rest is to be repeated first; some of the repetition of a piece has
  // been computed, the last `count` queries of `ring`.
  int32_t RepeatedTokens() const { return method_ != nullptr ? method_->RepeatedTokens(spec_) : 0; }
  int32_t repeated() const { return repeated_; }
  bool WantsRepetition(const SequenceRows& rows, int32_t tokens) const;
  void AfterRepetition(Backend& backend, const SequenceRows& rows, const QueryRing& ring, const RepeatedPiece& piece,
                       int32_t count);
  // PrefillMode::kChunked: a chunk is in, `tokens` of the prompt's `prompt_tokens` have been seen. Brings the rows
  // within the budget of the whole prompt.
  void AtChunkEnd(Backend& backend, SequenceRows& rows, const QueryRing* ring, int32_t tokens, int32_t prompt_tokens);
  // Before a decoding step, after which `tokens` will have been seen: whether AfterHead has something to do in it.
  bool BeginStep(int32_t tokens);
  // In the step, before a head attends: the row that it will probably give up. For different heads at once.
  StepHook::Comparison* Compares(const SequenceRows& rows, int layer, int kv_head);
  // In the step, when a head has attended: finds the rows that it gives up and those that they are merged into, while
  // its keys are near; with the last head of a layer all of the layer's rows go. AfterStep does what is left, as where
  // nobody calls this. For different heads at once.
  void AfterHead(Backend& backend, SequenceRows& rows, int layer, int kv_head);
  // A decoding step is over, `tokens` have been seen: policies that act at every step bring each head back within its
  // budget. DecodeBudget::kHeld: budgets grow with the tokens seen, and before another step would exceed the budget the
  // others select again by the same rule.
  void AfterStep(Backend& backend, SequenceRows& rows, const QueryRing* ring, int32_t tokens);
  // AfterStep of a step with these rows will select among all of them, seldom and at length.
  bool SelectsAfterStep(const SequenceRows& rows, int32_t tokens) const {
    return !budgets_.empty() && held() && !evicts_each_step() && !Fits(rows, tokens + 1, 1);
  }

  // The recall index on the device is other than the shape said (tables have been learnt): the next selection knows.
  void set_index_bytes(double fixed, double per_token) {
    shape_.index_fixed_bytes = fixed;
    shape_.index_bytes_per_token = per_token;
  }
  const DeviceShape& shape() const { return shape_; }
  // What recall may hold of each (layer, kv head), as of the last selection.
  int32_t recall_slots() const { return recall_slots_; }

  const CompressionCounters& counters() const { return counters_; }
  void ResetCounters() { counters_ = CompressionCounters(); }

  // Of the sequence's tokens; without it all are alike.
  void set_classes(const SequenceClasses& classes) { classes_ = classes; }

  // Told of merges; null: nobody.
  void set_observer(RetentionObserver* observer) { merger_.set_observer(observer); }

  void Save(ByteWriter& out) const;
  // False when the bytes are not those of a compressor of this model and policy.
  bool Load(ByteReader& in);

  // A bound on the rows of all layers and kv heads, recall slots and the row of a step included, from the end of a
  // prompt on until `tokens` have been seen, `decoded` of them since.
  static int64_t MostRows(const CompressionSpec& spec, const DeviceShape& shape, int64_t tokens, int64_t decoded);
  // Tokens of a stored prefix that a prompt of `tokens` tokens may start from: its policy must still see the queries
  // (or have the attention sums) that it decides by.
  static int32_t ReusablePrefix(const CompressionSpec& spec, int32_t tokens);

 private:
  enum class Moment {
    kPrompt,  // of a prompt, or a chunk of it
    kStep,    // one new row
    kAgain,   // while decoding, after the step's row has been seen
  };
  // Of which tokens the budget binds: those seen in `growth` steps, each of which adds a row to what does not evict at
  // every step.
  struct Horizon {
    int32_t tokens = 0;
    int32_t growth = 0;
    bool binds = false;  // the sum over layers and heads; else the published rules are taken as they are
  };

  bool held() const { return spec_.decode_budget == DecodeBudget::kHeld; }
  // All that is not dense evicts at every step.
  bool evicts_each_step() const {
    return spec_.schedule == Schedule::kPrefillAndStep && spec_.layer_budget != LayerBudgetRule::kLazy;
  }
  Horizon HorizonFrom(int32_t tokens) const;
  // Whether `growth` more rows in every head are within the budget of `tokens`.
  bool Fits(const SequenceRows& rows, int32_t tokens, int32_t growth) const;
  // The attention of the window before the next selection while decoding is summed up as it is computed, where it is
  // known when that will be: once it is as many steps away, `tokens` have been seen.
  void StartWindow(const Backend& backend, SequenceRows& rows, int32_t tokens);
  void StopWindow(SequenceRows& rows);
  // Sets budgets_ and recall_slots_; `seen` tokens are in.
  void SetBudgets(const Horizon& horizon, int32_t seen, absl::Span<const int> lazy_layers);
  // Sets budgets_ from the whole sequence and brings all layers within them.
  void CompressAll(Backend& backend, SequenceRows& rows, const QueryRing* ring, int32_t seen, const Horizon& horizon,
                   Moment moment);
  // Gives back pages that the rows to come until the next selection do not need, and puts rows in order where they stay
  // so for some steps.
  void TidyPages(Backend& backend, SequenceRows& rows, int32_t growth, Moment moment) const;
  std::vector<double> VarianceConcentrations(Backend& backend, const SequenceRows& rows) const;
  std::vector<int> ChooseLazyLayers(Backend& backend, const SequenceRows& rows, const QueryRing& ring, int32_t tokens,
                                    int32_t kept_rows) const;
  // kEqualMass, kBestRows: what share of all rows each layer gets when each kv head keeps `kept_rows` on average.
  std::vector<double> LayerShares(Backend& backend, const SequenceRows& rows, const QueryRing* ring, int32_t kept_rows);
  struct LayerWork {
    int64_t evicted_rows = 0, merged_rows = 0;
  };
  void Count(const LayerWork& work);
  // Brings layers within budgets_: all, or those that act at each step.
  void CompressLayers(Backend& backend, SequenceRows& rows, const QueryRing* ring, Moment moment, bool binds);
  struct Found;
  // A head gives up rows by its column sums, once it has more than the budget.
  bool GivesUp(const LayerBudget& budget, const HeadRows& head) const;
  // Those of which it gives up some, at least one.
  static LowestRows::Past PastOf(const HeadRows& head, const LayerBudget& budget);
  // The few that go, and what they are most like.
  Found FindLeaving(Backend& backend, const SequenceRows& rows, int layer, int kv_head);
  // Merges and evicts what AfterHead found, if that is as many rows of each head of the layer, or none of any: true.
  bool GoByFound(Backend& backend, SequenceRows& rows, int layer, LayerWork& work);
  // at_once: other layers at the same time.
  LayerWork CompressLayer(Backend& backend, SequenceRows& rows, int layer, const QueryRing* ring, Moment moment,
                          bool binds, bool at_once);
  // Null: all rows are equal.
  HeadScorer* ScorerOf(const LayerBudget& budget, int layer, int kv_head) const {
    return budget.score == method_ ? scorers_[layer * layout_.kv_heads + kv_head].get() : nullptr;
  }
  ResidentHeadView::Sequence View(Backend& backend, const SequenceRows& rows, const QueryRing* ring) const {
    return {.backend = &backend, .rows = &rows, .ring = ring, .classes = classes_, .group = group_};
  }
  static int QueryWindow(const CompressionSpec& spec);

  const KvLayout layout_;
  DeviceShape shape_;
  const int group_;
  const CompressionSpec spec_;
  const ScoreMethod* const method_;   // null: nothing is evicted
  std::vector<LayerBudget> budgets_;  // by layer; empty until the first prompt is in
  // By layer and kv head, made from the prompt of each turn: not saved.
  std::vector<std::unique_ptr<HeadScorer>> scorers_;
  std::vector<double> layer_weights_;  // LayerBudgetInput's, of the last prompt
  RowMerger merger_;
  struct Found {
    enum { kUnknown, kRows, kNothingLeaves } what = kUnknown;
    int32_t rows = 0;  // of the head then
    RowMerger::Likes likes;
  };
  std::vector<LowestRows> lowest_;              // by layer and kv head
  std::vector<StepHook::Comparison> compared_;  // likewise: the row that will probably leave
  std::vector<Found> found_;  // by layer and kv head, of this step; empty: AfterHead has nothing to do
  struct LayerInStep {
    std::atomic<int> attended{0};  // heads
    bool done = false;             // GoByFound
    LayerWork work;
  };
  std::vector<LayerInStep> in_step_;  // by layer
  SequenceClasses classes_;
  int32_t recall_slots_ = 0;
  int32_t repeated_ = 0;
  bool in_prompt_ = false;       // some of the prompt has been seen
  bool first_step_due_ = false;  // kFirstStep: the next decoding step compresses
  bool compressed_ = false;
  bool in_window_ = false;  // StartWindow
  CompressionCounters counters_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_COMPRESSOR_H_
