#include "worker/kv/row_scores.h"

#include <algorithm>

#include "absl/container/fixed_array.h"
#include "base/limits.h"
#include "worker/kernels/cpu/recall_scan.h"

namespace tidepool {
namespace {

// Of each [stride] array those at `places`, in place: arrays of [places].
void KeepPlaces(absl::Span<const int32_t> places, size_t stride, int arrays, std::vector<float>& values) {
  for (int array = 0; array < arrays; ++array) {
    const float* from = values.data() + array * stride;
    float* to = values.data() + array * places.size();
    for (size_t i = 0; i < places.size(); ++i) to[i] = from[places[i]];
  }
}

// In four lanes, which is as good as any order but fast.
float Sum(absl::Span<const float> x) {
  double lanes[4] = {};
  size_t i = 0;
  for (; i + 4 <= x.size(); i += 4) {
    for (size_t lane = 0; lane < 4; ++lane) lanes[lane] += x[i + lane];
  }
  for (; i < x.size(); ++i) lanes[0] += x[i];
  return static_cast<float>(lanes[0] + lanes[1] + lanes[2] + lanes[3]);
}

// Of all places: weights, and above. slots_too: what has a slot is above; not once rows are listed.
void Weigh(RowScores& scores, float least, bool slots_too, float* weights) {
  if (scores.above.size() < static_cast<size_t>(scores.positions) + kWeighSharesRoom) {
    scores.above.resize(scores.positions + kBlockTokens);
    scores.above_weight.resize(scores.above.size());
  }
  absl::FixedArray<const float*, 16> shares(scores.group);
  absl::FixedArray<float, 16> factor(scores.group);
  for (int g = 0; g < scores.group; ++g) {
    shares[g] = scores.share.data() + g * scores.stride;
    factor[g] = 1.0f / (scores.sum[g] * static_cast<float>(scores.group));
  }
  scores.rows_above = WeighShares({.shares = shares.data(),
                                   .factor = factor.data(),
                                   .queries = scores.group,
                                   .count = static_cast<int32_t>(scores.places()),
                                   .least = least,
                                   .marks = slots_too ? reinterpret_cast<const uint8_t*>(scores.state.data()) : nullptr,
                                   .mark = static_cast<uint8_t>(RecallState::kSlot),
                                   .weight = weights,
                                   .above = scores.above.data(),
                                   .above_weight = scores.above_weight.data()});
}

}  // namespace

int32_t RowScores::PlaceOf(int32_t position) const {
  if (!is_listed) return position;
  return static_cast<int32_t>(std::lower_bound(listed.begin(), listed.end(), position) - listed.begin());
}

void RowScores::SetWeights(float least) {
  weight.resize(positions);
  if (!is_listed) {
    Weigh(*this, least, /*slots_too=*/false, weight.data());
    return;
  }
  listed_weight.resize(listed.size());
  Weigh(*this, least, /*slots_too=*/false, listed_weight.data());
  std::fill(weight.begin(), weight.end(), 0.0f);
  for (size_t i = 0; i < listed.size(); ++i) weight[listed[i]] = listed_weight[i];
  for (int32_t i = 0; i < rows_above; ++i) above[i] = listed[above[i]];
}

void RowScores::List(float least) {
  weight.resize(positions);
  Weigh(*this, least, /*slots_too=*/true, weight.data());
  is_listed = true;
  listed.assign(above.begin(), above.begin() + rows_above);
  KeepPlaces(listed, stride, group, estimate);
  KeepPlaces(listed, stride, group, share);
  stride = listed.size();
  rest.resize(group);
  for (int g = 0; g < group; ++g) rest[g] = std::max(0.0f, sum[g] - Sum({share.data() + g * stride, stride}));
}

// Without branches, below: which rows are taken is hard to guess.
void RowScores::Shortlist(float least, int count) {
  const auto rows = static_cast<size_t>(rows_above);
  shortlist_place.resize(rows);
  size_t taken = 0;
  for (size_t i = 0; i < rows; ++i) {
    shortlist_place[taken] = static_cast<int32_t>(i);
    taken += static_cast<size_t>(above_weight[i] > least);
  }
  shortlist_place.resize(taken);
  shortlisted = least;
  if (taken > static_cast<size_t>(std::max(count, 0))) {
    shortlisted = BestPlaces({above_weight.data(), rows}, count, shortlist_place);
  }
  shortlist.resize(shortlist_place.size());
  for (size_t i = 0; i < shortlist.size(); ++i) shortlist[i] = above[shortlist_place[i]];
  if (!is_listed) shortlist_place = shortlist;
  slot_place.resize(places());
  taken = 0;
  for (size_t i = 0; i < places(); ++i) {
    slot_place[taken] = static_cast<int32_t>(i);
    taken += static_cast<size_t>(state[PositionAt(static_cast<int32_t>(i))] == RecallState::kSlot);
  }
  slot_place.resize(taken);
  exact.assign(estimate.begin(), estimate.begin() + static_cast<int64_t>(group * stride));
  error.assign(group, 0.0f);
  compared = 0;
}

void RowScores::SetExact(int32_t place, int g, float score) {
  const size_t at = g * stride + place;
  error[g] += (score - estimate[at]) * scale;
  exact[at] = score;
}

void RowScores::SetExactOfSlots(absl::Span<const float> scores) {
  for (int g = 0; g < group; ++g) {
    const float* of_query = scores.data() + g * slots.size();
    float total = 0;
    for (size_t i = 0; i < slots.size(); ++i) {
      const size_t at = g * stride + slot_place[i];
      const float in_shortlist = weight[slots[i].position] >= shortlisted ? 1.0f : 0.0f;
      total += in_shortlist * (of_query[i] - estimate[at]);
      exact[at] = of_query[i];
    }
    error[g] += total * scale;
  }
  for (const SlotRow& row : slots) compared += static_cast<int>(weight[row.position] >= shortlisted);
}

void RowScores::CompareByOthers(absl::Span<const int32_t> places) {
  if (compared == 0) return;
  for (int g = 0; g < group; ++g) {
    const float mean = error[g] / (static_cast<float>(compared) * scale);
    for (int32_t place : places) exact[g * stride + place] += mean;
  }
}

void RowScores::Correct() {
  if (shortlist.empty()) return;
  for (int g = 0; g < group; ++g) {
    const size_t at = g * stride;
    sum[g] = CorrectShares(estimate.data() + at, exact.data() + at, static_cast<int32_t>(places()), scale,
                           share.data() + at);
    if (is_listed) sum[g] += rest[g];
  }
}

}  // namespace tidepool
