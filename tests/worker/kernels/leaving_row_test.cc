#include "worker/kernels/cpu/leaving_row.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

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
