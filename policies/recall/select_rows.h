// Which evicted rows to bring and which recall slots may be taken for them (recall.md sections 5 to 7).
#ifndef TIDEPOOL_POLICIES_RECALL_SELECT_ROWS_H_
#define TIDEPOOL_POLICIES_RECALL_SELECT_ROWS_H_

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"

namespace tidepool {

// What a position is to recall, in one (layer, kv head).
enum class RecallState : uint8_t {
  kOut,        // the policy keeps its row, or it cannot be had
  kCandidate,  // may be brought
  kSlot,       // a candidate that holds a recall slot
};

// By position.
struct RecallRows {
  absl::Span<const float> weight;  // of candidates: softmax share, mean over the group's query heads
  absl::Span<const RecallState> state;
};

// A row that holds a recall slot, with its averaged weight.
struct SlotRow {
  int32_t position;
  float average;
  int32_t since = 0;  // tokens that had been seen when it was first found there
};

struct RecallChoice {
  std::vector<int32_t> wanted;   // positions without a slot, best first
  std::vector<int32_t> victims;  // positions whose slots may be taken, lowest average first
};

// The `count` best candidates, or all, best first; ties to the lower position.
std::vector<int32_t> BestRows(const RecallRows& rows, int count);

// Candidates, ascending, and their weights.
struct WeighedRows {
  absl::Span<const int32_t> positions;
  absl::Span<const float> weights;
};

// The `count` best of them, or all, best first; ties to the lower position.
std::vector<int32_t> BestOf(const WeighedRows& rows, int count);

// Of weights by ascending position the places of the same rows, ascending, to `best`. Returns the least weight of them,
// 0 if there are none.
float BestPlaces(absl::Span<const float> weights, int count, std::vector<int32_t>& best);

// The candidates that matter to a step that chooses by a threshold. Its top: those of at least kth and above 0.
struct TopRows {
  float kth = 0;     // the k-th largest weight of candidates; 0: fewer than k, a slot for each
  WeighedRows rows;  // the top, and others

  bool Has(float weight) const { return static_cast<int>(weight >= kth) & static_cast<int>(weight > 0); }

  std::vector<int32_t> positions;  // of `rows`, if they are nobody else's
  std::vector<float> weights;
};
// likely: the candidates with a weight above some bound, which outlive `top`; where they are k or more, no others need
// be looked at. top: kept from choice to choice for its memory.
void FindTopRows(const RecallRows& rows, int k, const WeighedRows& likely, TopRows& top);

// sync: `best`, the `slots` best candidates, are to be resident. held: by ascending position, here and below.
RecallChoice ChooseBest(const RecallRows& rows, absl::Span<const SlotRow> held, absl::Span<const int32_t> best);

// async: candidates above the threshold that are among the `slots` best, those of `top`, at most `most`. Slots of
// rows that are not of the top may be taken; no more victims are named than are needed.
RecallChoice ChooseAbove(const RecallRows& rows, absl::Span<const SlotRow> held, const TopRows& top, float threshold,
                         int slots, int most);

// Of the top, those with a weight above `least`, best first.
std::vector<int32_t> RowsAbove(const TopRows& top, float least);

// Gives the candidates that are not of the top, but have a weight above `near`, to `take`, until it returns false: the
// next to be wanted. By ascending position. near: of `likely`, or higher.
void RunnersUp(const TopRows& top, float near, absl::FunctionRef<bool(int32_t position)> take);

// async: rows that the next token may want. Heads that copy read on: after position p they want p + 1. So each of
// `best`, in order, is followed by the candidates at the next `follow` positions, until there are `most` different
// ones. Those with slots count; the others are given to `take`, until it returns false.
void RowsAhead(absl::Span<const int32_t> best, absl::Span<const RecallState> state, int follow, int most,
               absl::FunctionRef<bool(int32_t position)> take);

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_RECALL_SELECT_ROWS_H_
