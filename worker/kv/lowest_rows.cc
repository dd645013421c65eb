#include "worker/kv/lowest_rows.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "base/check.h"

namespace tidepool {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

}  // namespace

// Of a head's rows, by slot.
class LowestRows::Scores {
 public:
  Scores(const HeadRows& head, GroupReduce reduce) : largest_(reduce == GroupReduce::kMax) {
    TIDEPOOL_CHECK(head.keeps_column_sums());
    for (const std::vector<float>& of_query_head : head.column_sums()) columns_.push_back(of_query_head.data());
    if (reduce == GroupReduce::kMean) divisor_ = static_cast<float>(columns_.size());
    if (head.keeps_step_sums()) {
      TIDEPOOL_CHECK(!largest_);
      steps_ = head.step_sums().data();
    }
    all_change_ = head.adds_steps_to_column_sums();
  }

  float Settled(int32_t slot) const { return all_change_ ? 0 : OfColumns(slot); }
  float Of(int32_t slot, float settled) const {
    float sum = all_change_ ? OfColumns(slot) : settled;
    if (steps_ != nullptr) sum += steps_[slot];
    const float score = sum / divisor_;
    return std::isnan(score) ? -kInfinity : score;
  }

 private:
  float OfColumns(int32_t slot) const {
    float score = 0;
    for (const float* of_query_head : columns_) {
      const float sum = of_query_head[slot];
      score = !largest_ ? score + sum : score < sum ? sum : score;
    }
    return score;
  }

  const bool largest_;
  bool all_change_ = false;  // steps add to the column sums
  float divisor_ = 1;
  absl::InlinedVector<const float*, 16> columns_;
  const float* steps_ = nullptr;
};

void LowestRows::Clear() {
  rows_ = -1;
  any_listed_ = false;
  candidates_.clear();
}

void LowestRows::Follow(const HeadRows& head) {
  if (head.rows() != rows_ && head.rows() != rows_ + 1) Clear();
  rows_ = head.rows();
}

void LowestRows::Left(int32_t slot) {
  --rows_;
  candidates_.erase(std::remove_if(candidates_.begin(), candidates_.end(),
                                   [slot](const Candidate& candidate) { return candidate.slot == slot; }),
                    candidates_.end());
}

void LowestRows::List(const HeadRows& head, const Scores& scores, Past past, size_t count) {
  std::vector<Candidate> all;
  all.reserve(past.end - past.first);
  for (const int32_t slot : head.order().subspan(past.first, past.end - past.first)) {
    const float settled = scores.Settled(slot);
    all.push_back({slot, head.position(slot), settled, scores.Of(slot, settled)});
  }
  first_position_ = all.front().position;
  end_position_ = all.back().position + 1;
  const size_t wanted = std::max(kListed, count);
  bound_ = kInfinity;
  if (all.size() > wanted) {
    const auto last = all.begin() + static_cast<int64_t>(wanted) - 1;
    std::nth_element(all.begin(), last, all.end(),
                     [](const Candidate& a, const Candidate& b) { return a.score < b.score; });
    bound_ = last->score;
  }
  candidates_.clear();
  for (const Candidate& candidate : all) {
    if (candidate.score <= bound_) candidates_.push_back(candidate);
  }
  any_listed_ = true;
}

void LowestRows::ListNew(const HeadRows& head, const Scores& scores, Past past) {
  const int32_t end = end_position_;
  for (int32_t row = past.end - 1; row >= past.first; --row) {
    const int32_t slot = head.order()[row], position = head.position(slot);
    if (position < end) break;
    const float settled = scores.Settled(slot), score = scores.Of(slot, settled);
    if (score <= bound_) candidates_.push_back({slot, position, settled, score});
    end_position_ = std::max(end_position_, position + 1);
  }
}

bool LowestRows::Choose(const HeadRows& head, Past past, absl::Span<int32_t> slots) const {
  const int32_t first = head.position(head.order()[past.first]), last = head.position(head.order()[past.end - 1]);
  if (first < first_position_) return false;
  auto lower = [](const Candidate* a, const Candidate* b) {
    return a->score < b->score || (a->score == b->score && a->position > b->position);
  };
  absl::InlinedVector<const Candidate*, 4> lowest;  // ascending
  for (const Candidate& candidate : candidates_) {
    if (candidate.position < first || candidate.position > last) continue;
    if (lowest.size() == slots.size()) {
      if (!lower(&candidate, lowest.back())) continue;
      lowest.pop_back();
    }
    lowest.insert(std::upper_bound(lowest.begin(), lowest.end(), &candidate, lower), &candidate);
  }
  if (lowest.size() < slots.size()) return false;
  for (size_t i = 0; i < slots.size(); ++i) {
    slots[i] = lowest[i]->slot;
    if (head.position(slots[i]) != lowest[i]->position) return false;
  }
  return true;
}

void LowestRows::Find(const HeadRows& head, GroupReduce reduce, Past past, absl::Span<int32_t> slots) {
  const Scores scores(head, reduce);
  if (any_listed_) {
    ListNew(head, scores, past);
    size_t left = 0;
    for (Candidate& candidate : candidates_) {
      candidate.score = scores.Of(candidate.slot, candidate.settled);
      if (candidate.score <= bound_) candidates_[left++] = candidate;  // else it will stay above
    }
    candidates_.resize(left);
    if (Choose(head, past, slots)) return;
  }
  List(head, scores, past, slots.size());
  TIDEPOOL_CHECK(Choose(head, past, slots));
}

int32_t LowestRows::Guess(const HeadRows& head, GroupReduce reduce, Past past) {
  int32_t slot = -1;
  if (any_listed_) {
    ListNew(head, Scores(head, reduce), past);
    if (Choose(head, past, absl::MakeSpan(&slot, 1))) return slot;
  }
  Find(head, reduce, past, absl::MakeSpan(&slot, 1));
  return slot;
}

}  // namespace tidepool
