#include "policies/recall/select_rows.h"

#include <algorithm>
#include <functional>

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

// The first `count` of `positions` in the order of their weights, best first.
std::vector<int32_t> Best(const RecallRows& rows, std::vector<int32_t> positions, int count) {
  const BestFirst better(rows.weight);
  if (count < static_cast<int>(positions.size())) {
    std::nth_element(positions.begin(), positions.begin() + std::max(count, 0), positions.end(), better);
    positions.resize(std::max(count, 0));
  }
  std::sort(positions.begin(), positions.end(), better);
  return positions;
}

bool LowerAverage(const SlotRow& a, const SlotRow& b) {
  const float rank_a = BestFirst::Rank(a.average), rank_b = BestFirst::Rank(b.average);
  return rank_a < rank_b || (rank_a == rank_b && a.position < b.position);
}

// The first `most` of `rows` by average.
std::vector<int32_t> Victims(std::vector<SlotRow> rows, size_t most) {
  most = std::min(most, rows.size());
  std::partial_sort(rows.begin(), rows.begin() + static_cast<std::ptrdiff_t>(most), rows.end(), LowerAverage);
  std::vector<int32_t> victims;
  for (size_t i = 0; i < most; ++i) victims.push_back(rows[i].position);
  return victims;
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
    std::nth_element(ranks.begin(), ranks.begin() + k - 1, ranks.end(), std::greater<float>());
    top.kth = ranks[k - 1];
  }
  for (int32_t position : likely) {
    const float weight = rows.weight[position];
    if (weight >= top.kth && weight > 0) {
      top.positions.push_back(position);
    } else if (near > 0 && weight > near) {
      top.runners_up.push_back(position);
    }
  }
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
  choice.victims = Victims(std::move(others), choice.wanted.size());
  return choice;
}

RecallChoice ChooseAbove(const RecallRows& rows, absl::Span<const SlotRow> held, const TopRows& top, float threshold,
                         int slots, int most) {
  RecallChoice choice;
  for (int32_t position : top.positions) {
    if (rows.state[position] == RecallState::kCandidate && rows.weight[position] > threshold) {
      choice.wanted.push_back(position);
    }
  }
  if (choice.wanted.empty()) return choice;
  std::vector<SlotRow> others;
  for (const SlotRow& row : held) {
    const float weight = rows.weight[row.position];
    if (!(weight >= top.kth) || !(weight > 0)) others.push_back(row);
  }
  // Of equal ones at the kth place there may be more than there is room for.
  const auto room = static_cast<int>(slots - static_cast<int>(held.size()) + static_cast<int>(others.size()));
  choice.wanted = Best(rows, std::move(choice.wanted), std::min(most, room));
  choice.victims = Victims(std::move(others), choice.wanted.size());
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
