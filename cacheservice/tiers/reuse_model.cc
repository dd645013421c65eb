#include "cacheservice/tiers/reuse_model.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace tidepool {
namespace {

// Returns that must have been seen before a rate departs from what it leans on by half of the difference: about the
// blocks of one long request, which share one fate.
constexpr float kPriorReturns = 32;
// The share that a count keeps in each round of learning: a memory of some twenty rounds.
constexpr float kFade = 0.95f;
constexpr float kRanksPerOctave = 4;  // neighbours differ by a fifth
// Hazard rate of everything before anything was seen. Only ratios of worths matter, so any small number does.
constexpr float kFirstRate = 1e-6f;

// First age of a bucket: 0, 1, 1.5, 2, 3, 4, 6, ...
constexpr float FirstAge(int bucket) {
  if (bucket == 0) return 0;
  return static_cast<float>(uint64_t{1} << (bucket - 1) / 2) * (bucket % 2 == 1 ? 1.0f : 1.5f);
}

// 0, 1, 2, 3, 4-5, 6-11, 12-31, 32 or more.
int ReferenceClass(uint32_t references) {
  constexpr uint32_t kLeast[] = {2, 3, 4, 6, 9, 17, 65};
  return static_cast<int>(std::upper_bound(std::begin(kLeast), std::end(kLeast), references) - std::begin(kLeast));
}

}  // namespace

ReuseModel::ReuseModel() {
  for (int cls = 0; cls < kClasses; ++cls) Learn();
}

uint8_t ReuseModel::ClassOf(uint32_t references, uint32_t new_blocks) {
  const int growth = std::min(7, static_cast<int>(std::bit_width(new_blocks)));  // 0, 1, 2-3, 4-7, ..., 64 or more
  return static_cast<uint8_t>(ReferenceClass(references) * 8 + growth);
}

int ReuseModel::BucketOf(uint64_t age) {
  if (age == 0) return 0;
  const int octave = std::bit_width(age) - 1;
  const int upper_half = octave == 0 ? 0 : static_cast<int>(age >> (octave - 1)) & 1;
  return std::min(kAges - 1, 1 + 2 * octave + upper_half);
}

void ReuseModel::Waited(uint8_t cls, uint64_t from_age, uint64_t to_age) {
  const float from = static_cast<float>(from_age), to = static_cast<float>(to_age);
  for (int age = BucketOf(from_age); age < kAges && FirstAge(age) < to; ++age) {
    waited_[cls][age] += std::min(to, FirstAge(age + 1)) - std::max(from, FirstAge(age));
  }
}

void ReuseModel::Returned(uint8_t cls, uint64_t age) { returns_[cls][BucketOf(age)] += 1; }

int ReuseModel::Rank(uint8_t cls, uint64_t age) const {
  const int bucket = BucketOf(age);
  float worth = worth_[cls][bucket];
  if (bucket + 1 < kAges) {
    const float part = (static_cast<float>(age) - FirstAge(bucket)) / (FirstAge(bucket + 1) - FirstAge(bucket));
    worth += part * (worth_[cls][bucket + 1] - worth);
  }
  return static_cast<int>(std::floor(kRanksPerOctave * std::log2(worth)));
}

void ReuseModel::Learn() {
  if (next_ == 0) LearnShape();
  LearnClass(next_);
  for (float& count : returns_[next_]) count *= kFade;
  for (float& time : waited_[next_]) time *= kFade;
  next_ = (next_ + 1) % kClasses;
}

void ReuseModel::LearnShape() {
  Row returns{}, waited{};
  float all_returns = 0, all_waited = 0;
  for (int cls = 0; cls < kClasses; ++cls) {
    for (int age = 0; age < kAges; ++age) {
      returns[age] += returns_[cls][age];
      waited[age] += waited_[cls][age];
      all_returns += returns_[cls][age];
      all_waited += waited_[cls][age];
    }
  }
  float expected = all_returns > 0 && all_waited > 0 ? all_returns / all_waited : kFirstRate;
  for (int age = 0; age < kAges; ++age) {
    if (age > 1) expected = shape_[age - 1] * FirstAge(age - 1) / FirstAge(age);
    shape_[age] = (returns[age] + kPriorReturns) / (waited[age] + kPriorReturns / expected);
  }
}

void ReuseModel::LearnClass(int cls) {
  const Row& returns = returns_[cls];
  const Row& waited = waited_[cls];
  float seen = kPriorReturns, expected = kPriorReturns;
  for (int age = 0; age < kAges; ++age) {
    seen += returns[age];
    expected += waited[age] * shape_[age];
  }
  float against_all = seen / expected;  // how much higher the rate is than that of all classes, at the age before
  Row comes_back, holds;  // probability that it returns within the bucket, expected time held in it, of who enters it
  for (int age = 0; age < kAges; ++age) {
    const float width = FirstAge(age + 1) - FirstAge(age);
    const float rate = (returns[age] + kPriorReturns) / (waited[age] + kPriorReturns / (shape_[age] * against_all));
    against_all = rate / shape_[age];
    comes_back[age] = -std::expm1(-rate * width);
    holds[age] = comes_back[age] / rate;
  }
  for (int from = 0; from < kAges; ++from) {
    float waiting = 1, hits = 0, time = 0, best = 0;
    for (int age = from; age < kAges; ++age) {
      hits += waiting * comes_back[age];
      time += waiting * holds[age];
      waiting *= 1 - comes_back[age];
      best = std::max(best, hits / time);
    }
    worth_[cls][from] = best;
  }
}

}  // namespace tidepool
