#include "worker/kv/row_scores.h"

#include <algorithm>

#include "absl/container/fixed_array.h"
#include "base/limits.h"
#include "worker/kernels/cpu/recall_scan.h"

namespace tidepool {
namespace {

// Arrays of [from] become arrays of [to], of which there are as many; to <= from.
void Narrow(size_t from, size_t to, int arrays, std::vector<float>& values) {
  for (int array = 1; array < arrays; ++array) {
    std::copy_n(values.data() + array * from, to, values.data() + array * to);
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

// [group]: what makes shares weights.
absl::FixedArray<float, 16> FactorsOf(const RowScores& scores) {
  absl::FixedArray<float, 16> factor(scores.group);
  for (int g = 0; g < scores.group; ++g) factor[g] = 1.0f / (scores.sum[g] * static_cast<float>(scores.group));
  return factor;
}

// All positions with their estimates and shares.
struct PlacesToWeigh {
  PlacesToWeigh(RowScores& scores, float least)
      : estimates(scores.group), shares(scores.group), factors(FactorsOf(scores)) {
    for (int g = 0; g < scores.group; ++g) {
      estimates[g] = scores.estimate.data() + g * scores.stride;
      shares[g] = scores.share.data() + g * scores.stride;
    }
    task = {.shares = shares.data(),
            .x = estimates.data(),
            .which = reinterpret_cast<const uint8_t*>(scores.state.data()),
            .queries = scores.group,
            .count = scores.positions,
            .factor = factors.data(),
            .least = least,
            .mark = static_cast<uint8_t>(RecallState::kSlot)};
  }
  absl::FixedArray<float*, 16> estimates, shares;
  absl::FixedArray<float, 16> factors;
  WeighRowsTask task;
};

void MakeRoomAbove(RowScores& scores) {
  if (scores.above.size() >= static_cast<size_t>(scores.positions) + kWeighSharesRoom) return;
  scores.above.resize(scores.positions + kBlockTokens);
  scores.above_weight.resize(scores.above.size());
}

// Of all places: weights, and above.
void Weigh(RowScores& scores, float least, float* weights) {
  MakeRoomAbove(scores);
  absl::FixedArray<const float*, 16> shares(scores.group);
  for (int g = 0; g < scores.group; ++g) shares[g] = scores.share.data() + g * scores.stride;
  scores.rows_above = WeighShares({.shares = shares.data(),
                                   .factor = FactorsOf(scores).data(),
                                   .queries = scores.group,
                                   .count = static_cast<int32_t>(scores.places()),
                                   .least = least,
                                   .weight = weights,
                                   .above = scores.above.data(),
                                   .above_weight = scores.above_weight.data()});
}

// By position, from those of what is listed.
void SpreadWeights(RowScores& scores) {
  scores.weight.resize(scores.positions);
  std::fill(scores.weight.begin(), scores.weight.end(), 0.0f);
  for (size_t i = 0; i < scores.listed.size(); ++i) scores.weight[scores.listed[i]] = scores.listed_weight[i];
}

}  // namespace

int32_t RowScores::PlaceOf(int32_t position) const {
  if (!is_listed) return position;
  return static_cast<int32_t>(std::lower_bound(listed.begin(), listed.end(), position) - listed.begin());
}

void RowScores::SetWeights(float least) {
  if (!is_listed) {
    weight.resize(positions);
    Weigh(*this, least, weight.data());
    return;
  }
  listed_weight.resize(listed.size());
  Weigh(*this, least, listed_weight.data());
  SpreadWeights(*this);
  for (int32_t i = 0; i < rows_above; ++i) above[i] = listed[above[i]];
}

void RowScores::SetJoint(absl::Span<const float> shares, float least) {
  MakeRoomAbove(*this);
  joint.resize(positions);
  rows_above = 0;
  for (int32_t i = 0; i < positions; ++i) {  // without a branch: which are above is hard to guess
    joint[i] = shares[i] / mass;
    above[rows_above] = i;
    above_weight[rows_above] = joint[i];
    rows_above += static_cast<int>(state[i] != RecallState::kOut) & static_cast<int>(joint[i] > least);
  }
}

void RowScores::SumShares(float* shares) {
  static_assert(static_cast<uint8_t>(RecallState::kOut) == 0);
  const auto* which = reinterpret_cast<const uint8_t*>(state.data());
  sum.resize(group);
  mass = 0;
  for (int g = 0; g < group; ++g) {
    ShareSums sums;
    SharesOf(estimate.data() + g * stride, which, positions, scale, shares + g * stride, &sums);
    sum[g] = sums.chosen;
    mass += sums.chosen / sums.all / static_cast<float>(group);
  }
}

void RowScores::MeasureWorth(float least) {
  if (is_listed) {
    held = worth = 0;
    for (const int32_t position : listed) {
      const bool holds = state[position] == RecallState::kSlot;
      held += holds ? weight[position] : 0.0f;
      worth += !holds && weight[position] > least ? weight[position] : 0.0f;
    }
    worth *= mass;
    return;
  }
  const PlacesToWeigh places(*this, least);
  const WeightSums sums = SumWeights(places.task);
  held = sums.marked;
  worth = mass * sums.above;
}

void RowScores::List(float least) {
  MakeRoomAbove(*this);
  const PlacesToWeigh places(*this, least);
  rows_above = ListRows(places.task, {.rows = above.data(),
                                      .weight = above_weight.data(),
                                      .x = places.estimates.data(),
                                      .shares = places.shares.data()});
  is_listed = true;
  listed.assign(above.begin(), above.begin() + rows_above);
  Narrow(stride, listed.size(), group, estimate);
  Narrow(stride, listed.size(), group, share);
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
  absl::FixedArray<float, 1024> in_shortlist(slots.size());
  for (size_t i = 0; i < slots.size(); ++i) {
    const float estimated = is_listed ? above_weight[slot_place[i]] : weight[slots[i].position];
    in_shortlist[i] = estimated >= shortlisted ? 1.0f : 0.0f;
    compared += static_cast<int>(in_shortlist[i]);
  }
  for (int g = 0; g < group; ++g) {
    const float* of_query = scores.data() + g * slots.size();
    const float* estimates = estimate.data() + g * stride;
    float* to = exact.data() + g * stride;
    float totals[4] = {};  // that do not wait for each other
    for (size_t i = 0; i < slots.size(); ++i) {
      const int32_t at = slot_place[i];
      totals[i % 4] += in_shortlist[i] * (of_query[i] - estimates[at]);
      to[at] = of_query[i];
    }
    error[g] += ((totals[0] + totals[1]) + (totals[2] + totals[3])) * scale;
  }
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
