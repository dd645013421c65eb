#include "policies/recall/select_rows.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <utility>

#include "base/check.h"
#include "policies/retain/token_scores.h"

namespace tidepool {
namespace {

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

// A float's bits in the order of floats.
uint32_t OrderedBits(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return bits ^ (static_cast<uint32_t>(static_cast<int32_t>(bits) >> 31) | 0x80000000u);
}

// Sorts by the high half, ascending; equal ones keep their order. Byte by byte: comparing, half of the branches would
// be guessed wrong, which takes ten times as long.
void SortByHighHalf(std::vector<uint64_t>& keys) {
  constexpr int kBytes = 4, kValues = 256;
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

// The first `count` of `positions`, which ascend, in the order of their weights, best first.
std::vector<int32_t> Best(const RecallRows& rows, std::vector<int32_t> positions, int count) {
  std::vector<uint64_t> keys(positions.size());
  for (size_t i = 0; i < keys.size(); ++i) {
    // + 0: of the two zeros none is larger.
    const uint32_t rank = ~OrderedBits(BestFirst::Rank(rows.weight[positions[i]]) + 0.0f);
    keys[i] = uint64_t{rank} << 32 | static_cast<uint32_t>(positions[i]);
  }
  SortByHighHalf(keys);
  positions.resize(std::min(positions.size(), static_cast<size_t>(std::max(count, 0))));
  for (size_t i = 0; i < positions.size(); ++i) positions[i] = static_cast<int32_t>(keys[i] & UINT32_MAX);
  return positions;
}

// The first `most` of `rows`, which ascend, by average, lowest first.
std::vector<int32_t> Victims(absl::Span<const SlotRow> rows, size_t most) {
  std::vector<uint64_t> keys(rows.size());
  for (size_t i = 0; i < keys.size(); ++i) {
    const uint32_t rank = OrderedBits(BestFirst::Rank(rows[i].average) + 0.0f);
    keys[i] = uint64_t{rank} << 32 | static_cast<uint32_t>(rows[i].position);
  }
  SortByHighHalf(keys);
  std::vector<int32_t> victims(std::min(most, keys.size()));
  for (size_t i = 0; i < victims.size(); ++i) victims[i] = static_cast<int32_t>(keys[i] & UINT32_MAX);
  return victims;
}

// The k-th largest of the values, k in 1 .. their number.
float KthLargest(std::vector<float>& values, int k) {
  // Floats in the order of their numbers; then by their position in the range that these span, in kBins bins: one pass
  // to count, one to take the bin in which the k-th is. Selection by pivots pays for a wrong guess at every value.
  constexpr int kBits = 10, kBins = 1 << kBits;
  uint32_t least = UINT32_MAX, most = 0;
  for (const float value : values) {
    least = std::min(least, OrderedBits(value));
    most = std::max(most, OrderedBits(value));
  }
  const int shift = std::max(0, static_cast<int>(std::bit_width(most - least)) - kBits);
  uint32_t count[kBins] = {};
  for (const float value : values) ++count[(OrderedBits(value) - least) >> shift];
  uint32_t bin = kBins - 1, above = 0;
  while (above + count[bin] < static_cast<uint32_t>(k)) above += count[bin--];
  size_t taken = 0;
  for (const float value : values) {
    values[taken] = value;
    taken += static_cast<size_t>(((OrderedBits(value) - least) >> shift) == bin);
  }
  const auto kth = values.begin() + (k - static_cast<int>(above) - 1);
  std::nth_element(values.begin(), kth, values.begin() + static_cast<std::ptrdiff_t>(taken), std::greater<float>());
  return *kth;
}

}  // namespace

std::vector<int32_t> BestRows(const RecallRows& rows, int count) { return Best(rows, Candidates(rows), count); }

TopRows FindTopRows(const RecallRows& rows, int k, float near, absl::Span<const int32_t> likely) {
  TopRows top;
  if (k < 1) return top;
  std::vector<int32_t> all;
  if (likely.size() < static_cast<size_t>(k)) likely = all = Candidates(rows);
  if (likely.size() >= static_cast<size_t>(k)) {
    std::vector<float> ranks(likely.size());
    std::transform(likely.begin(), likely.end(), ranks.begin(),
                   [&](int32_t position) { return BestFirst::Rank(rows.weight[position]); });
    top.kth = KthLargest(ranks, k);
  }
  // Without branches: which are taken is hard to guess.
  top.positions.resize(likely.size());
  top.runners_up.resize(likely.size());
  size_t best = 0, next = 0;
  for (int32_t position : likely) {
    const float weight = rows.weight[position];
    const bool is_best = static_cast<int>(weight >= top.kth) & static_cast<int>(weight > 0);
    top.positions[best] = top.runners_up[next] = position;
    best += static_cast<size_t>(is_best);
    next +=
        static_cast<size_t>(static_cast<int>(!is_best) & static_cast<int>(near > 0) & static_cast<int>(weight > near));
  }
  top.positions.resize(best);
  top.runners_up.resize(next);
  return top;
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
  choice.wanted.resize(top.positions.size());
  size_t wanted = 0;
  for (int32_t position : top.positions) {
    choice.wanted[wanted] = position;
    wanted += static_cast<size_t>(static_cast<int>(rows.state[position] == RecallState::kCandidate) &
                                  static_cast<int>(rows.weight[position] > threshold));
  }
  choice.wanted.resize(wanted);
  if (choice.wanted.empty()) return choice;
  std::vector<SlotRow> others(held.size());
  size_t taken = 0;
  for (const SlotRow& row : held) {
    const float weight = rows.weight[row.position];
    others[taken] = row;
    taken += static_cast<size_t>(static_cast<int>(!(weight >= top.kth)) | static_cast<int>(!(weight > 0)));
  }
  others.resize(taken);
  // Of equal ones at the kth place there may be more than there is room for.
  const auto room = static_cast<int>(slots - static_cast<int>(held.size()) + static_cast<int>(others.size()));
  choice.wanted = Best(rows, std::move(choice.wanted), std::min(most, room));
  choice.victims = Victims(others, choice.wanted.size());
  return choice;
}

std::vector<int32_t> RowsAbove(const RecallRows& rows, const TopRows& top, float least) {
  std::vector<int32_t> above;
  for (int32_t position : top.positions) {
    if (rows.weight[position] > least) above.push_back(position);
  }
  return Best(rows, std::move(above), static_cast<int>(top.positions.size()));
}

std::vector<int32_t> RowsAhead(absl::Span<const int32_t> best, absl::Span<const RecallState> state, int follow,
                               int most) {
  std::vector<int32_t> ahead;
  std::vector<uint8_t> taken(state.size(), 0);
  int count = 0;
  for (int32_t position : best) {
    const auto end = static_cast<int32_t>(std::min<size_t>(state.size(), static_cast<size_t>(position) + follow + 1));
    for (int32_t at = position; at < end; ++at) {
      if (count >= most) return ahead;
      if (taken[at] || state[at] == RecallState::kOut) continue;
      taken[at] = 1;
      ++count;
      if (state[at] != RecallState::kSlot) ahead.push_back(at);
    }
  }
  return ahead;
}

}  // namespace tidepool
