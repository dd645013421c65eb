#include "worker/kernels/cpu/leaving_row.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "policies/retain/token_scores.h"
#include "worker/kernels/cpu/attention.h"
#include "worker/kernels/cpu/isa.h"

namespace tidepool {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int kSlots = 16;

std::vector<const LeavingRowKernels*> AllKernels() {
  std::vector<const LeavingRowKernels*> kernels = {&cpu_baseline::kLeavingRowKernels};
#ifdef TIDEPOOL_ISA_X86
  if (ActiveIsa() >= Isa::kAvx2) kernels.push_back(&cpu_avx2::kLeavingRowKernels);
  if (ActiveIsa() >= Isa::kAvx512) kernels.push_back(&cpu_avx512::kLeavingRowKernels);
#endif
  return kernels;
}

float LowestBut(std::vector<float> scores, int row) {
  scores[row] = kInfinity;
  for (float& score : scores) score = std::isnan(score) ? -kInfinity : score;
  return *std::min_element(scores.begin(), scores.end());
}

// By the policy's own arithmetic. Values are few, so that many rows are equal.
TEST(LeavingRowTest, TheLeastSumIsWhatThePolicyLeavesOut) {
  std::mt19937 random(3);
  for (const int rows : {1, 7, 16, 17, 64, 131}) {
    for (int turn = 0; turn < 24; ++turn) {
      const int arrays = 1 + turn % 3, slots = (rows + 24) / kSlots * kSlots;
      std::vector<std::vector<float>> sums(arrays, std::vector<float>(slots));
      for (std::vector<float>& of_head : sums) {
        for (float& sum : of_head) sum = static_cast<float>(random() % 5) + 0.1f;
        if (turn % 4 == 3) of_head[random() % rows] = turn % 8 == 3 ? kNan : kInfinity;
      }
      // Rows lie anywhere, beside slots without one, and some of them are not asked about.
      std::vector<int32_t> places(slots), positions(slots, -1);
      std::iota(places.begin(), places.end(), 0);
      if (turn % 2 == 1) std::shuffle(places.begin(), places.end(), random);
      const int before = turn % 6, after = turn % 5;
      for (int row = 0; row < std::min(slots, before + rows + after); ++row) positions[places[row]] = 3 * row;
      const int asked = std::min(rows, slots - before);
      const bool largest = turn % 3 == 1;
      const auto divisor = static_cast<float>(turn % 3 == 2 ? arrays : 1);
      std::vector<float> scores;
      std::vector<const float*> arrays_of_task;
      for (const std::vector<float>& of_head : sums) arrays_of_task.push_back(of_head.data());
      for (int i = 0; i < asked; ++i) {
        float score = 0;
        for (const float* of_head : arrays_of_task) {
          const float sum = of_head[places[before + i]];
          score = largest ? std::max(score, sum) : score + sum;
        }
        scores.push_back(score / divisor);
      }
      LeastSumTask task = {.sums = arrays_of_task.data(),
                           .arrays = arrays,
                           .largest = largest,
                           .divisor = divisor,
                           .positions = positions.data(),
                           .slots = slots,
                           .first = 3 * before,
                           .end = 3 * (before + asked - 1) + 1};
      for (const LeavingRowKernels* kernels : AllKernels()) {
        const LeastSum least = kernels->least_sum(task);
        const int worst = WorstIndex(scores);
        ASSERT_EQ(least.slot, places[before + worst]) << rows << " rows, turn " << turn;
        ASSERT_EQ(least.others, LowestBut(scores, worst));
        for (int i = 0; i < asked; ++i) {
          ASSERT_TRUE(std::isnan(scores[i]) || SumScore(task, places[before + i]) == scores[i]);
        }
      }
      task.end = task.first;
      for (const LeavingRowKernels* kernels : AllKernels()) ASSERT_EQ(kernels->least_sum(task).slot, -1);
    }
  }
}

TEST(LeavingRowTest, CosinesAreThoseOfTheKeysInTheirPages) {
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  constexpr int kDim = 48, kPages = 11, kHole = 6;
  std::vector<float> keys(kPages * 2 * kDim * kSlots), vector(kDim);
  for (float& x : keys) x = normal(random);
  for (float& x : vector) x = normal(random);
  for (int c = 0; c < kDim; ++c) keys[(2 * 2 * kDim + c) * kSlots + 3] = 0;  // a key of no length
  std::vector<uint16_t> halves(keys.size());
  FloatToHalf(keys.data(), static_cast<int64_t>(keys.size()), halves.data());
  HalfToFloat(halves.data(), static_cast<int64_t>(keys.size()), keys.data());
  const float length = std::sqrt(std::inner_product(vector.begin(), vector.end(), vector.begin(), 0.0f));
  auto expected = [&](int slot) {
    double product = 0, square = 0;
    for (int c = 0; c < kDim; ++c) {
      const double key = keys[(slot / kSlots * 2 * kDim + c) * kSlots + slot % kSlots];
      product += key * vector[c];
      square += key * key;
    }
    return product / (length * std::max(std::sqrt(square), 1e-12));
  };
  std::vector<const void*> of_floats, of_halves;
  for (int page = 0; page < kPages; ++page) {
    of_floats.push_back(page == kHole ? nullptr : keys.data() + page * 2 * kDim * kSlots);
    of_halves.push_back(page == kHole ? nullptr : halves.data() + page * 2 * kDim * kSlots);
  }
  KeysTask task = {.slots = kPages * kSlots, .head_dim = kDim, .vector = vector.data(), .length = length};
  for (const LeavingRowKernels* kernels : AllKernels()) {
    std::vector<float> from_floats(task.slots, 7), from_halves(task.slots, 7);
    task.pages = of_floats.data();
    kernels->cosines_f32(task, from_floats.data());
    task.pages = of_halves.data();
    kernels->cosines_f16(task, from_halves.data());
    for (int slot = 0; slot < task.slots; ++slot) {
      if (slot / kSlots == kHole) {
        ASSERT_EQ(from_floats[slot], -kInfinity) << "nothing lies there";
      } else {
        ASSERT_NEAR(from_floats[slot], expected(slot), kDim * 6e-8) << slot;  // roundings of sums of kDim products
      }
    }
    ASSERT_EQ(from_floats, from_halves);
  }
}

TEST(LeavingRowTest, TheLargestCosineAndOfEqualOnesTheFirstByPosition) {
  constexpr int kRows = 5 * kSlots;
  std::vector<float> cosines(kRows, 0.25f);
  std::vector<int32_t> positions(kRows);
  std::iota(positions.begin(), positions.end(), 1000);
  std::swap(positions[20], positions[70]);
  for (const int slot : {20, 33, 70}) cosines[slot] = 0.5f;
  auto expect = [&](int32_t slot) {
    for (const LeavingRowKernels* kernels : AllKernels()) {
      EXPECT_EQ(kernels->largest(cosines.data(), kRows, positions.data()), slot);
    }
  };
  expect(70);
  cosines[70] = -kInfinity;
  expect(33);
  cosines[2] = kNan;
  cosines[41] = 0.75f;
  expect(41);
  std::fill(cosines.begin(), cosines.end(), -kInfinity);
  cosines[2] = kNan;
  expect(-1);
}

}  // namespace
}  // namespace tidepool
