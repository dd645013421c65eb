// Element-wise steps against double precision, on every instruction set that this machine has.
#include "worker/kernels/cpu/elementwise.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "worker/kernels/cpu/elementwise_kernels.h"
#include "worker/kernels/cpu/isa.h"

namespace tidepool {
namespace {

constexpr double kEpsilon = std::numeric_limits<float>::epsilon();
constexpr int64_t kSizes[] = {1, 7, 16, 31, 64, 577, 1536};

const ElementwiseKernels& KernelsOf(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512) return cpu_avx512::kElementwiseKernels;
  if (isa == Isa::kAvx2) return cpu_avx2::kElementwiseKernels;
#endif
  return cpu_baseline::kElementwiseKernels;
}

std::vector<float> Random(int64_t size, uint32_t seed, float deviation = 1.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, deviation);
  std::vector<float> x(size);
  for (float& v : x) v = normal(random);
  return x;
}

class ElementwiseTest : public ::testing::TestWithParam<Isa> {
 protected:
  const ElementwiseKernels& kernels_ = KernelsOf(GetParam());
};

TEST_P(ElementwiseTest, RmsNormAgreesWithDoublePrecision) {
  for (int64_t size : kSizes) {
    for (float deviation : {1e-4f, 1.0f, 300.0f}) {
      const std::vector<float> x = Random(size, 1, deviation), weight = Random(size, 2);
      std::vector<float> out(size);
      kernels_.rms_norm(x.data(), weight.data(), 1e-5f, size, out.data());
      double sum = 0;
      for (float v : x) sum += double{v} * v;
      const double scale = 1 / std::sqrt(sum / static_cast<double>(size) + 1e-5f);
      for (int64_t i = 0; i < size; ++i) {
        const double expected = x[i] * scale * weight[i];
        // Sums of size / 16 squares per lane, halved by the root, and three roundings.
        const double steps = static_cast<double>(size) / 32 + 4;
        ASSERT_NEAR(out[i], expected, steps * kEpsilon * std::abs(expected)) << "size " << size << " element " << i;
      }
    }
  }
}

TEST_P(ElementwiseTest, RmsNormWorksInPlace) {
  std::vector<float> x = Random(577, 3), out(577);
  const std::vector<float> weight = Random(577, 4);
  kernels_.rms_norm(x.data(), weight.data(), 1e-6f, 577, out.data());
  kernels_.rms_norm(x.data(), weight.data(), 1e-6f, 577, x.data());
  EXPECT_EQ(x, out);
}

TEST_P(ElementwiseTest, RmsNormGivesTheBitsOfTheBaseline) {
  const std::vector<float> x = Random(577, 5), weight = Random(577, 6);
  std::vector<float> out(577), baseline(577);
  kernels_.rms_norm(x.data(), weight.data(), 1e-6f, 577, out.data());
  KernelsOf(Isa::kBaseline).rms_norm(x.data(), weight.data(), 1e-6f, 577, baseline.data());
  EXPECT_EQ(out, baseline);
}

TEST_P(ElementwiseTest, RopeRotatesNeighboursOrHalvesAndLeavesTheRest) {
  for (int pairs : {1, 5, 16, 32}) {
    for (bool neox : {false, true}) {
      const std::vector<float> before = Random(2 * pairs + 3, 7), angle = Random(pairs, 8, 3.0f);
      std::vector<float> cosine(pairs), sine(pairs);
      for (int i = 0; i < pairs; ++i) {
        cosine[i] = std::cos(angle[i]);
        sine[i] = std::sin(angle[i]);
      }
      std::vector<float> head = before;
      kernels_.rope_rotate(head.data(), cosine.data(), sine.data(), pairs, neox);
      for (int i = 0; i < pairs; ++i) {
        const int first = neox ? i : 2 * i, second = neox ? i + pairs : 2 * i + 1;
        const double a = before[first], b = before[second];
        const double tolerance = 2 * kEpsilon * (std::abs(a) + std::abs(b));
        ASSERT_NEAR(head[first], a * cosine[i] - b * sine[i], tolerance);
        ASSERT_NEAR(head[second], a * sine[i] + b * cosine[i], tolerance);
      }
      for (int i = 2 * pairs; i < 2 * pairs + 3; ++i) ASSERT_EQ(head[i], before[i]);
    }
  }
}

TEST_P(ElementwiseTest, SiluMultiplyAgreesWithDoublePrecision) {
  for (int64_t size : kSizes) {
    for (float deviation : {0.1f, 3.0f, 40.0f}) {
      const std::vector<float> before = Random(size, 9, deviation), up = Random(size, 10);
      std::vector<float> gate = before;
      kernels_.silu_multiply(gate.data(), up.data(), size);
      for (int64_t i = 0; i < size; ++i) {
        const double expected = before[i] / (1 + std::exp(-double{before[i]})) * up[i];
        // Four roundings and an exponential good to some 2 ulp; below 1e-37 results may be flushed.
        ASSERT_NEAR(gate[i], expected, 5 * kEpsilon * std::abs(expected) + 1e-36) << before[i];
      }
    }
  }
}

TEST_P(ElementwiseTest, SiluMultiplyIsSaneFarOut) {
  std::vector<float> gate = {0.0f, 90.0f, -90.0f, 1e30f, -1e30f, -std::numeric_limits<float>::max()};
  const std::vector<float> up(gate.size(), 1.0f);
  kernels_.silu_multiply(gate.data(), up.data(), static_cast<int64_t>(gate.size()));
  EXPECT_EQ(gate[0], 0.0f);
  EXPECT_EQ(gate[1], 90.0f);
  EXPECT_NEAR(gate[2], 0.0f, 1e-36f);
  EXPECT_EQ(gate[3], 1e30f);
  for (int i : {4, 5}) EXPECT_NEAR(gate[i], 0.0f, 1e-6f) << i;
}

TEST_P(ElementwiseTest, AnElementDoesNotDependOnItsPlace) {
  const std::vector<float> x = Random(100, 11, 4.0f), y = Random(100, 12);
  std::vector<float> all = x;
  kernels_.silu_multiply(all.data(), y.data(), 100);
  for (int64_t i = 0; i < 100; ++i) {
    float one = x[i];
    kernels_.silu_multiply(&one, &y[i], 1);
    ASSERT_EQ(one, all[i]);
  }
}

TEST_P(ElementwiseTest, AddInPlaceAdds) {
  for (int64_t size : kSizes) {
    const std::vector<float> before = Random(size, 13), y = Random(size, 14);
    std::vector<float> x = before;
    kernels_.add_in_place(x.data(), y.data(), size);
    for (int64_t i = 0; i < size; ++i) ASSERT_EQ(x[i], before[i] + y[i]);
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, ElementwiseTest, ::testing::ValuesIn(SupportedIsas()),
                         [](const auto& info) { return std::string(IsaName(info.param)); });

TEST(RopeTableTest, IsExactFarOut) {
  const std::vector<float> frequencies = {1.0f, 0.3f, 1e-2f, 1e-5f};
  std::vector<float> cosine(4), sine(4);
  for (int64_t position : {int64_t{0}, int64_t{1}, int64_t{8191}, int64_t{1000003}}) {
    RopeTable(frequencies.data(), 4, 1.25f, position, cosine.data(), sine.data());
    for (int i = 0; i < 4; ++i) {
      const long double angle = static_cast<long double>(position) * frequencies[i];
      EXPECT_NEAR(cosine[i], 1.25L * std::cos(angle), kEpsilon);
      EXPECT_NEAR(sine[i], 1.25L * std::sin(angle), kEpsilon);
    }
  }
}

}  // namespace
}  // namespace tidepool
