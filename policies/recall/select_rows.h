// Which evicted rows to bring and which recall slots may be taken for them (recall.md sections 5 to 7).
#ifndef TIDEPOOL_POLICIES_RECALL_SELECT_ROWS_H_
#define TIDEPOOL_POLICIES_RECALL_SELECT_ROWS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace tidepool {

// Candidates are the rows that the policy does not keep, by ascending position. Indices below are into them.
struct RecallCandidates {
  absl::Span<const float> weight;      // softmax share, mean over the group's query heads
  absl::Span<const uint8_t> resident;  // it holds a recall slot now
  absl::Span<const float> average;     // averaged weight of resident ones; others are not looked at
};

struct RecallChoice {
  std::vector<int32_t> best;     // the `slots` best, resident or not, best first
  std::vector<int32_t> wanted;   // not resident, best first
  std::vector<int32_t> victims;  // resident and not chosen in this step, lowest average first
};

// The `count` best, or all, best first; ties to the lower index.
std::vector<int32_t> BestRows(absl::Span<const float> weight, int count);

// The k-th largest weight; 0 when there are fewer than k: a slot for each, nothing to beat.
float KthLargest(absl::Span<const float> weight, int k);

// sync: the `slots` best candidates are to be resident, ties to the lower position.
RecallChoice ChooseBest(const RecallCandidates& candidates, int slots);

// async: rows above margin * theta that are among the `slots` best and not resident, at most `most`. Slots of residents
// below the slots-th best weight may be taken.
RecallChoice ChooseAbove(const RecallCandidates& candidates, float threshold, int slots, int most);

// async: rows that the next token may want. Heads that copy read on: after position p they want p + 1. So each of
// `best`, in order, is followed by the candidates at the next `follow` positions, until there are `most` different
// ones. positions: of the candidates, ascending. Residents count, and are left out of the result.
std::vector<int32_t> RowsAhead(absl::Span<const int32_t> best, absl::Span<const int32_t> positions,
                               absl::Span<const uint8_t> resident, int follow, int most);

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_RECALL_SELECT_ROWS_H_
