// What the queries of one (layer, kv head) give the rows that recall may bring, in one step: estimates by the index,
// what rows' own keys say where they are at hand, and the weights that are chosen by.
#ifndef TIDEPOOL_WORKER_KV_ROW_SCORES_H_
#define TIDEPOOL_WORKER_KV_ROW_SCORES_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "policies/recall/select_rows.h"

namespace tidepool {

// By position; or, once some are listed, estimates, shares and the like by place in `listed`. [group] arrays lie one
// after the other. Reused from step to step.
struct RowScores {
  int group = 0;
  float scale = 0;                 // of q.k: 1 / sqrt(head_dim)
  int32_t positions = 0;           // that may be chosen: those before the step
  size_t stride = 0;               // of the [group] arrays
  std::vector<RecallState> state;  // by position; candidates: what is not kept as it was, and is to be had
  std::vector<SlotRow> slots;      // that hold recall slots, ascending
  std::vector<int32_t> slot;       // theirs
  std::vector<float> estimate;     // [group][stride]: q.k by the index, where there is a shortlist
  std::vector<float> share;        // [group][stride]: exp of the scaled estimate of candidates, not normalised
  std::vector<float> sum;          // [group]: of the candidates' shares
  float mass = 0;                  // the candidates' part of the attention, by the index, mean over the group
  // async, trigger score: of the candidates' weights what is in recall slots, and of the attention what a choice could
  // bring; by the index.
  float held = 0, worth = 0;
  std::vector<float> weight;  // by position; what is chosen by
  // The first rows_above of `above`: positions with a weight near the threshold or above, ascending; and their weights.
  std::vector<int32_t> above;
  std::vector<float> above_weight;
  int32_t rows_above = 0;
  TopRows top;
  // Heads that choose together do so by this instead of `weight`, on the same scale; by position, else empty.
  std::vector<float> joint;
  // Trigger cosine: by position, 1 + the largest cosine of a query, by the index; the largest cosine of a resident
  // row.
  std::vector<float> nearness;
  float nearest = 0;

  // Only some candidates matter to the choice, those with recall slots among them: ascending positions. The others'
  // weights are told as 0.
  bool is_listed = false;
  std::vector<int32_t> listed;
  std::vector<float> listed_weight;
  std::vector<float> rest;  // [group]: of the other candidates' shares

  std::vector<int32_t> shortlist;        // positions whose own keys shall be compared, ascending
  std::vector<int32_t> shortlist_place;  // theirs
  std::vector<int32_t> slot_place;       // of `slots`
  float shortlisted = 0;                 // what is in it weighs more, or as much, by the index
  std::vector<float> exact;  // [group][stride]: q.k by the row's own key where that is known, else `estimate`
  std::vector<float> error;  // [group]: of those compared, what the scaled q.k is above the estimate; the sum
  int compared = 0;

  bool any() const { return mass > 0; }
  const std::vector<float>& chosen_by() const { return joint.empty() ? weight : joint; }
  size_t places() const { return is_listed ? listed.size() : static_cast<size_t>(positions); }
  int32_t PlaceOf(int32_t position) const;
  int32_t PositionAt(int32_t place) const { return is_listed ? listed[place] : place; }

  // Fills weight, and above with the rows that weigh more than `least` and their weights.
  void SetWeights(float least);
  // Fills joint from the attention that rows have in all heads that choose together, and above with candidates whose
  // joint weight is more than `least`.
  void SetJoint(absl::Span<const float> shares, float least);
  // Fills sum and mass from the estimates. shares: gets the shares, may be the estimates.
  void SumShares(float* shares);
  // Then, or where rows are listed and weighed: fills held and worth. What weighs more than `least` would be wanted.
  void MeasureWorth(float least);
  // From now on only candidates that weigh more than `least`, and what has slots, are listed, and they are above.
  // Fills their shares; their weights are those above.
  void List(float least);
  // Shortlists of the rows above the `count` best that weigh more than `least`, or all of these. Where rows are listed,
  // all of them are to be above.
  void Shortlist(float least, int count);
  // A query's q.k of the row at a place of the shortlist, by its own key. A row counts as compared once all are known.
  void SetExact(int32_t place, int g, float score);
  // Of all rows with slots: [group][slots].
  void SetExactOfSlots(absl::Span<const float> scores);
  // Then for those of the shortlist that cannot be had in time, by places: rows that an index ranks high are those that
  // it ranks too high, and would win against rows that were compared. They are corrected by the mean error of these.
  void CompareByOthers(absl::Span<const int32_t> places);
  // Once what can be compared has been: shares and their sum by `exact`.
  void Correct();
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_ROW_SCORES_H_
