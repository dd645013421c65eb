#include "policies/recall/select_rows.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <utility>

#include "absl/container/fixed_array.h"
#include "base/check.h"
#include "policies/retain/token_scores.h"

namespace tidepool {
namespace {

// What a choice needs for a moment, without asking the allocator as long as there are so many.
template <typename T>
using Scratch = absl::FixedArray<T, 2048>;

// All candidates by ascending position.
std::vector<int32_t> Candidates(const RecallRows& rows) {
  TIDEPOOL_CHECK(rows.weight.size() == rows.state.size());
  const auto count = static_cast<int32_t>(rows.state.size());
  std::vector<int32_t> positions(count);
  int32_t taken = 0;
  for (int32_t i = 0; i < count; ++i) {  // without a branch: which are taken is as good as random
    positions[taken] = i;
    taken += static_cast<int32_t>(rows.state[i] != RecallState::kOut);
  }
  positions.resize(taken);
  return positions;
}

// A float's bits in the order of floats, no number before all of them; the two zeros are one.
int32_t RankOf(float value) {
  const auto bits = std::bit_cast<int32_t>(BestFirst::Rank(value) + 0.0f);
  return bits ^ (bits >> 31 & INT32_MAX);
}

float WeightOf(int32_t rank) { return std::bit_cast<float>(rank ^ (rank >> 31 & INT32_MAX)); }

// A position that is to be ordered: the lowest first, by rank and then by position.
uint64_t KeyOf(int32_t rank, int32_t position) {
  return uint64_t{static_cast<uint32_t>(rank) ^ 0x80000000u} << 32 | static_cast<uint32_t>(position);
}

// Sorts keys that ascend by their low half by the high one. Many of them byte by byte: comparing, half of the branches
// would be guessed wrong, which takes ten times as long.
void SortByHighHalf(std::vector<uint64_t>& keys) {
  constexpr int kBytes = 4, kValues = 256, kFew = 48;
  if (keys.size() <= kFew) return std::sort(keys.begin(), keys.end());
  uint32_t place[kBytes][kValues] = {};
  for (const uint64_t key : keys) {
    for (int byte = 0; byte < kBytes; ++byte) ++place[byte][key >> (32 + 8 * byte) & 255];
  }
  std::vector<uint64_t> sorted(keys.size());
  for (int byte = 0; byte < kBytes; ++byte) {
    uint32_t next = 0;
    for (uint32_t& of_value : place[byte]) next += std::exchange(of_value, next);
    for (const uint64_t key : keys) sorted[place[byte][key >> (32 + 8 * byte) & 255]++] = key;
    keys.swap(sorted);
  }
}

// The k-th largest of the ranks, k in 1 .. their number. Counts how many lie in each part of their range, and goes on
// with those in the part that it is in: no branch for each, as selection by pivots would guess wrong at every other
// one.
int32_t KthLargest(absl::Span<const int32_t> ranks, int k) {
  constexpr int kPartBits = 8, kParts = 1 << kPartBits;
  constexpr size_t kFew = 16;
  Scratch<int32_t> left(ranks.size());
  while (ranks.size() > kFew) {
    int32_t lowest = INT32_MAX, highest = INT32_MIN;
    for (const int32_t rank : ranks) {
      lowest = std::min(lowest, rank);
      highest = std::max(highest, rank);
    }
    if (lowest == highest) return lowest;
    const uint32_t range = static_cast<uint32_t>(highest) - static_cast<uint32_t>(lowest);
    const int shift = std::max(0, static_cast<int>(std::bit_width(range)) - kPartBits);
    auto part_of = [&](int32_t rank) { return (static_cast<uint32_t>(rank) - static_cast<uint32_t>(lowest)) >> shift; };
    uint32_t counts[2][kParts] = {};  // by turns: neighbours are often in one part, and would wait for each other
    for (size_t i = 0; i < ranks.size(); ++i) ++counts[i % 2][part_of(ranks[i])];
    uint32_t part = kParts - 1;
    for (;; --part) {
      const auto count = static_cast<int>(counts[0][part] + counts[1][part]);
      if (k <= count) break;
      k -= count;
    }
    size_t taken = 0;
    for (const int32_t rank : ranks) {
      left[taken] = rank;
      taken += static_cast<size_t>(part_of(rank) == part);
    }
    ranks = {left.data(), taken};
  }
  // Of few: fewer than k are larger, and k or more are not smaller.
  for (const int32_t rank : ranks) {
    int larger = 0, as_large = 0;
    for (const int32_t other : ranks) {
      larger += static_cast<int>(other > rank);
      as_large += static_cast<int>(other >= rank);
    }
    if (larger < k && k <= as_large) return rank;
  }
  TIDEPOOL_CHECK(k < 1);  // unless it is none of theirs
  return INT32_MAX;
}

// The first `count` of the positions, which ascend, by ascending rank.
std::vector<int32_t> FirstByRank(absl::Span<const int32_t> ranks, absl::Span<const int32_t> positions, int count) {
  const size_t size = std::min(positions.size(), static_cast<size_t>(std::max(count, 0)));
  if (size == 0) return {};
  std::vector<uint64_t> keys(positions.size());
  for (size_t i = 0; i < keys.size(); ++i) keys[i] = KeyOf(ranks[i], positions[i]);
  if (size < keys.size() / 4) {
    const int32_t last = KthLargest(ranks, static_cast<int>(ranks.size() - size) + 1);
    size_t taken = 0;
    for (size_t i = 0; i < keys.size(); ++i) {
      keys[taken] = keys[i];
      taken += static_cast<size_t>(ranks[i] <= last);
    }
    keys.resize(taken);
  }
  SortByHighHalf(keys);
  std::vector<int32_t> first(size);
  for (size_t i = 0; i < size; ++i) first[i] = static_cast<int32_t>(keys[i] & UINT32_MAX);
  return first;
}

// The first `count` of the positions, which ascend, by descending weight.
std::vector<int32_t> Best(absl::Span<const float> weights, absl::Span<const int32_t> positions, int count) {
  Scratch<int32_t> ranks(positions.size());
  for (size_t i = 0; i < ranks.size(); ++i) ranks[i] = ~RankOf(weights[i]);
  return FirstByRank(ranks, positions, count);
}

// The first `most` of `rows`, which ascend, by average, lowest first.
std::vector<int32_t> Victims(absl::Span<const SlotRow> rows, size_t most) {
  Scratch<int32_t> ranks(rows.size()), positions(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    ranks[i] = RankOf(rows[i].average);
    positions[i] = rows[i].position;
  }
  return FirstByRank(ranks, positions, static_cast<int>(most));
}

// The weights of the positions.
std::vector<float> WeightsOf(const RecallRows& rows, absl::Span<const int32_t> positions) {
  std::vector<float> weights(positions.size());
  for (size_t i = 0; i < weights.size(); ++i) weights[i] = rows.weight[positions[i]];
  return weights;
}

}  // namespace

std::vector<int32_t> BestRows(const RecallRows& rows, int count) {
  const std::vector<int32_t> candidates = Candidates(rows);
  return Best(WeightsOf(rows, candidates), candidates, count);
}

std::vector<int32_t> BestOf(const WeighedRows& rows, int count) { return Best(rows.weights, rows.positions, count); }

float BestPlaces(absl::Span<const float> weights, int count, std::vector<int32_t>& best) {
  best.resize(weights.size());
  if (count < 1 || weights.empty()) {
    best.clear();
    return 0;
  }
  Scratch<int32_t> ranks(weights.size());
  std::transform(weights.begin(), weights.end(), ranks.begin(), RankOf);
  if (ranks.size() <= static_cast<size_t>(count)) {
    std::iota(best.begin(), best.end(), 0);
    return WeightOf(*std::min_element(ranks.begin(), ranks.end()));
  }
  const int32_t kth = KthLargest(ranks, count);
  auto equal = count;  // of those at kth, so many are taken
  for (const int32_t rank : ranks) equal -= static_cast<int>(rank > kth);
  size_t taken = 0;
  for (size_t i = 0; i < ranks.size(); ++i) {
    const int is_equal = static_cast<int>(ranks[i] == kth) & static_cast<int>(equal > 0);
    best[taken] = static_cast<int32_t>(i);
    taken += static_cast<size_t>(static_cast<int>(ranks[i] > kth) | is_equal);
    equal -= is_equal;
  }
  best.resize(taken);
  return WeightOf(kth);
}

void FindTopRows(const RecallRows& rows, int k, const WeighedRows& likely, TopRows& top) {
  top.kth = 0;
  top.rows = likely;
  if (k < 1) {
    top.rows = WeighedRows();
    return;
  }
  if (likely.positions.size() < static_cast<size_t>(k)) {
    top.positions = Candidates(rows);
    top.weights = WeightsOf(rows, top.positions);
    top.rows = {top.positions, top.weights};
  }
  if (top.rows.positions.size() < static_cast<size_t>(k)) return;
  Scratch<int32_t> ranks(top.rows.weights.size());
  std::transform(top.rows.weights.begin(), top.rows.weights.end(), ranks.begin(), RankOf);
  const int32_t kth = KthLargest(ranks, k);
  top.kth = WeightOf(kth);
}

RecallChoice ChooseBest(const RecallRows& rows, absl::Span<const SlotRow> held, absl::Span<const int32_t> best) {
  RecallChoice choice;
  std::vector<uint8_t> chosen(rows.state.size(), 0);
  for (int32_t position : best) {
    chosen[position] = 1;
    if (rows.state[position] != RecallState::kSlot) choice.wanted.push_back(position);
  }
  std::vector<SlotRow> others;
  for (const SlotRow& row : held) {
    if (!chosen[row.position]) others.push_back(row);
  }
  choice.victims = Victims(others, choice.wanted.size());
  return choice;
}

RecallChoice ChooseAbove(const RecallRows& rows, absl::Span<const SlotRow> held, const TopRows& top, float threshold,
                         int slots, int most) {
  RecallChoice choice;
  Scratch<int32_t> wanted(top.rows.positions.size());
  Scratch<float> weights(wanted.size());
  size_t taken = 0;
  for (size_t i = 0; i < top.rows.positions.size(); ++i) {  // without a branch, as below: it would be guessed wrong
    const int32_t position = top.rows.positions[i];
    const float weight = top.rows.weights[i];
    wanted[taken] = position;
    weights[taken] = weight;
    taken += static_cast<size_t>(static_cast<int>(rows.state[position] == RecallState::kCandidate) &
                                 static_cast<int>(weight > threshold) & static_cast<int>(top.Has(weight)));
  }
  if (taken == 0) return choice;
  Scratch<SlotRow> others(held.size());
  size_t free = 0;
  for (const SlotRow& row : held) {
    const float weight = rows.weight[row.position];
    others[free] = row;
    free += static_cast<size_t>(!top.Has(weight));
  }
  // Of equal ones at the kth place there may be more than there is room for.
  const auto room = static_cast<int>(slots - static_cast<int>(held.size()) + static_cast<int>(free));
  choice.wanted = Best({weights.data(), taken}, {wanted.data(), taken}, std::min(most, room));
  choice.victims = Victims({others.data(), free}, choice.wanted.size());
  return choice;
}

std::vector<int32_t> RowsAbove(const TopRows& top, float least) {
  std::vector<int32_t> above;
  std::vector<float> weights;
  for (size_t i = 0; i < top.rows.positions.size(); ++i) {
    if (!(top.rows.weights[i] > least) || !top.Has(top.rows.weights[i])) continue;
    above.push_back(top.rows.positions[i]);
    weights.push_back(top.rows.weights[i]);
  }
  return Best(weights, above, static_cast<int>(above.size()));
}

void RunnersUp(const TopRows& top, float near, absl::FunctionRef<bool(int32_t position)> take) {
  for (size_t i = 0; i < top.rows.positions.size(); ++i) {
    const float weight = top.rows.weights[i];
    if (weight > near && !top.Has(weight) && !take(top.rows.positions[i])) return;
  }
}

void RowsAhead(absl::Span<const int32_t> best, absl::Span<const RecallState> state, int follow, int most,
               absl::FunctionRef<bool(int32_t position)> take) {
  std::vector<uint64_t> taken((state.size() + 63) / 64, 0);
  int count = 0;
  for (int32_t position : best) {
    const auto end = static_cast<int32_t>(std::min<size_t>(state.size(), static_cast<size_t>(position) + follow + 1));
    for (int32_t at = position; at < end; ++at) {
      if (count >= most) return;
      const uint64_t bit = uint64_t{1} << at % 64;
      if ((taken[at / 64] & bit) != 0 || state[at] == RecallState::kOut) continue;
      taken[at / 64] |= bit;
      ++count;
      if (state[at] != RecallState::kSlot && !take(at)) return;
    }
  }
}

}  // namespace tidepool
