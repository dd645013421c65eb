// The third stage of a policy: which rows of a (layer, kv head) are worth keeping. A method says what it must see and
// makes one scorer for each (layer, kv head) of a sequence; the engine shows it the head through a HeadView. Methods
// live with the preset that brings them, in policies/retain/presets/; docs/policies/adding.md adds one.
#ifndef TIDEPOOL_POLICIES_RETAIN_SCORE_METHOD_H_
#define TIDEPOOL_POLICIES_RETAIN_SCORE_METHOD_H_

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "base/bytes.h"
#include "policies/kv/rope.h"
#include "policies/retain/compression_spec.h"
#include "policies/retain/select.h"
#include "policies/retain/token_class.h"

namespace tidepool {

// Attention of a sequence's last queries over the rows of a head.
struct AttentionRows {
  int queries = 0;
  int keys = 0;                      // rows that the policy keeps, by ascending position
  std::vector<float> probabilities;  // [query heads of the group][queries][keys], causal
};

struct HeadQueries {
  int count = 0;
  int32_t first_position = 0;  // they are one after another
  std::vector<float> data;     // [query heads of the group][count][head_dim]
};

// A part of the context while the model is made to repeat it (ScoreMethod::RepeatedTokens).
struct RepeatedPiece {
  int32_t first = 0, last = 0;  // positions first to last - 1
  int32_t repetition = 0;       // the rows from this position on repeat it; they go when it has been repeated
};

// What a scorer may ask of its head. Rows are those that the policy keeps, by ascending position; recalled ones are not
// among them. Each answer costs what it says.
class HeadView {
 public:
  virtual ~HeadView() = default;

  virtual int layer() const = 0;
  virtual int kv_head() const = 0;
  virtual int group() const = 0;  // query heads
  virtual int head_dim() const = 0;
  virtual int rows() const = 0;
  virtual int32_t position(int row) const = 0;
  virtual TokenClass token_class(int row) const = 0;
  // Rows that the head may keep, the average of its layer.
  virtual int budget() const = 0;

  // Of the last `last` queries, or as many as are remembered (ScoreMethod::Queries). The softmax runs over all resident
  // rows; scale: what a query at a position is multiplied by. O(group * last * rows * head_dim).
  virtual AttentionRows Attention(int last, absl::FunctionRef<float(int32_t position)> scale) const = 0;
  AttentionRows Attention(int last) const {
    return Attention(last, [](int32_t) { return 1.0f; });
  }
  // Attention that each row has received from the last `last` queries, of all query heads of the group together,
  // [rows]; empty where it was not summed up as it was computed (ScoreMethod::SummedQueries): then Attention knows.
  virtual std::vector<float> SummedAttention(int last) const { return {}; }
  // Attention that each row has received from all queries so far, [rows], reduced over the group. Only for methods that
  // need_column_sums.
  virtual std::vector<float> ColumnSums(GroupReduce reduce) const = 0;
  // float32 [count][head_dim], of the rows from `first` on; keys are after RoPE. O(count * head_dim).
  virtual std::vector<float> Keys(int first, int count) const = 0;
  virtual std::vector<float> Values(int first, int count) const = 0;
  // The last queries before RoPE, at most as many as are remembered.
  virtual HeadQueries Queries(int last) const = 0;
  virtual const Rope& rope() const = 0;
};

// Scores of one (layer, kv head) of one sequence.
class HeadScorer {
 public:
  virtual ~HeadScorer() = default;

  // A prompt, or a chunk of it, is in: scores are made anew from what the view has.
  virtual void OnPrompt(const HeadView&) {}
  // A decoding step is over: the last row and the last query are new.
  virtual void OnStep(const HeadView&) {}
  // Of the first `past` rows at least, larger is better. Minus infinity: the row leaves although there is room
  // (ScoreMethod::leaves_room).
  virtual std::vector<float> Scores(const HeadView& view, int past) = 0;
  // ScoreMethod::follows_prompt: the last `count` queries of a prompt are new, with their rows; `first` in a turn.
  virtual void OnPromptQueries(const HeadView&, int /*count*/, bool /*first*/) {}
  // ScoreMethod::RepeatedTokens: some of the repetition of a piece has been computed, `count` new queries, whose rows
  // are the last of the view.
  virtual void OnRepetition(const HeadView&, const RepeatedPiece&, int /*count*/) {}
  // Only these rows stay (ascending).
  virtual void Keep(absl::Span<const int32_t>) {}

  // What a session keeps between turns, of scorers that do not make all of it anew from the next prompt.
  virtual void Save(ByteWriter&) const {}
  virtual void Load(ByteReader&) {}
};

// A number of a method's own, set by CompressionParams.score_options.
struct ScoreOption {
  std::string_view name;
  double fallback, low, high;
};

class ScoreMethod {
 public:
  virtual ~ScoreMethod() = default;

  virtual std::string_view name() const = 0;
  virtual absl::Span<const ScoreOption> options() const { return {}; }

  // Last queries that must be remembered.
  virtual int Queries(const CompressionSpec&) const { return 0; }
  // Its scorers ask for SummedAttention of so many: it should be there when rows are selected again.
  virtual int SummedQueries(const CompressionSpec&) const { return 0; }
  virtual bool needs_column_sums() const { return false; }
  // Its scores are the column sums, reduced over the group, and nothing else.
  virtual bool is_column_sums() const { return false; }

  // Last rows that stay whatever their score.
  virtual int Window(const CompressionSpec&) const { return 0; }
  // Rows that are never given up and one more, and the fields that add up to it.
  virtual int LeastRows(const CompressionSpec& spec) const { return Window(spec) + 1; }
  virtual std::string_view least_fields() const { return "one row"; }
  // `total` rows of a head: what is chosen by score, and what is recent.
  virtual RowBudget Split(const CompressionSpec& spec, int total) const;
  // The same of a share of `tokens`, which is no whole number of rows.
  virtual RowBudget SplitShare(const CompressionSpec& spec, int tokens, double share) const;

  // May act at every step: its scores follow the queries, or stay as they are.
  virtual bool each_step() const { return true; }
  // Rows have scores at all: heads can share a budget, layers can be compared by what their best rows hold.
  virtual bool ranks() const { return true; }
  // One score for all heads of a layer, by LayerScores. Its scorers are not asked.
  virtual bool layer_wide() const { return false; }
  // Rows may leave although the budget has room.
  virtual bool leaves_room() const { return false; }
  // Scorers see every query of a prompt, at most Queries at a time. Then prompts share no stored prefix.
  virtual bool follows_prompt() const { return false; }
  // Above 0: before rows leave at the end of a prompt, the model repeats what it has not repeated yet, so many tokens
  // at a time, and scorers see these queries. About as much work as the prompt.
  virtual int RepeatedTokens(const CompressionSpec&) const { return 0; }
  // Scorers hold something for each row from step to step, so that rows only come behind the last one; at the end of a
  // prompt they make it anew unless they follow prompts.
  virtual bool keeps_row_state() const { return false; }
  // Scorers are told of prompts and steps, also while nothing leaves.
  virtual bool follows_steps() const { return false; }

  // Null: all rows are equal, the first ones stay.
  virtual std::unique_ptr<HeadScorer> MakeScorer(const CompressionSpec& spec) const = 0;
  // layer_wide: of all rows of the layer, whose heads hold the same ones.
  virtual std::vector<float> LayerScores(absl::Span<const HeadView* const> heads) const;
};

// Null when there is none of that name.
const ScoreMethod* FindScore(std::string_view name);
// Of all presets, each once.
std::vector<const ScoreMethod*> AllScores();
// The request's value of one of the method's options, or its own.
double OptionOf(const CompressionSpec& spec, const ScoreMethod& method, std::string_view name);

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_RETAIN_SCORE_METHOD_H_
