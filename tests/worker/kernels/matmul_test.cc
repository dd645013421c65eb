// Products of packed matrices against double precision over the dequantised weights and the quantised activations, for
// every tensor type on every instruction set that this machine has.
#include "worker/kernels/cpu/matmul.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "tests/worker/kernels/random_tensor.h"
#include "worker/kernels/cpu/activations.h"
#include "worker/kernels/cpu/isa.h"
#include "worker/kernels/cpu/matmul_dispatch.h"
#include "worker/kernels/cpu/packed_matrix.h"

namespace tidepool {
namespace {

using ::testing::ElementsAreArray;

constexpr TensorType kTypes[] = {TensorType::kF32,  TensorType::kF16,  TensorType::kBF16, TensorType::kQ4_0,
                                 TensorType::kQ4_1, TensorType::kQ5_0, TensorType::kQ5_1, TensorType::kQ8_0,
                                 TensorType::kQ4_K, TensorType::kQ5_K, TensorType::kQ6_K};
constexpr int64_t kBatches[] = {1, 2, 3, 7, 8, 17, 33};

bool IsFloat(TensorType type) { return BlockElements(type) == 1; }

std::vector<float> RandomRows(int64_t count, int64_t columns, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.3f, 1.5f);  // a mean, so that offsets and minima matter
  std::vector<float> x(count * columns);
  for (float& v : x) v = normal(random);
  return x;
}

// Bits, so that equality of floats is equality of what was computed.
std::vector<uint32_t> Bits(const std::vector<float>& values) {
  std::vector<uint32_t> bits(values.size());
  std::memcpy(bits.data(), values.data(), values.size() * sizeof(float));
  return bits;
}

std::vector<float> Product(Isa isa, const PackedMatrix& matrix, const float* x, int64_t count, int threads,
                           const float* bias = nullptr, int64_t out_stride = 0) {
  ThreadTeam team(threads);
  HugeMemory memory;
  Activations activations;
  activations.Set(x, count, matrix.columns(), !matrix.is_float(), team);
  if (out_stride == 0) out_stride = matrix.rows();
  std::vector<float> out(count * out_stride, -77.0f);
  const MatMulTask task[] = {{&matrix, bias, out.data(), out_stride}};
  MatMulWith(MatMulKernelsOf(isa), task, activations, team);
  return out;
}

// What the kernels see of an activation row.
std::vector<double> SeenActivations(const float* x, int64_t columns, bool quantized) {
  if (!quantized) return std::vector<double>(x, x + columns);
  ThreadTeam team(1);
  HugeMemory memory;
  Activations activations;
  activations.Set(x, 1, columns, true, team);
  std::vector<double> seen;
  for (int64_t b = 0; b < columns / kBlockInputs; ++b) {
    const ActivationBlock& block = activations.data().blocks[b];
    for (int i = 0; i < kBlockInputs; ++i) seen.push_back(double{block.scale[0]} * block.values[i / 4][0][i % 4]);
  }
  return seen;
}

struct Expected {
  double value;
  double magnitude;  // sum of absolute products: errors of rounding are relative to it
};

Expected ExpectedResult(const TensorView& tensor, int64_t row, const std::vector<double>& x) {
  std::vector<float> weights(tensor.columns);
  DequantizeRow(tensor, row, weights.data());
  Expected expected = {0, 0};
  for (int64_t i = 0; i < tensor.columns; ++i) {
    expected.value += weights[i] * x[i];
    expected.magnitude += std::abs(weights[i] * x[i]);
  }
  return expected;
}

// Each float operation is off by at most half an epsilon of a partial sum; partial sums are below the sum of absolute
// values, where the stored values without offset (at most 255/127 times the weight's) and minima count apart: factor 4.
double Tolerance(double magnitude, int64_t steps) {
  return 4 * magnitude * std::numeric_limits<float>::epsilon() * static_cast<double>(steps + 2);
}

void ExpectIsProduct(const std::vector<float>& out, const TensorView& tensor, const std::vector<float>& x,
                     bool quantized) {
  const int64_t count = static_cast<int64_t>(x.size()) / tensor.columns;
  const int64_t steps = quantized ? tensor.columns / 16 : tensor.columns;
  for (int64_t c = 0; c < count; ++c) {
    const std::vector<double> seen = SeenActivations(x.data() + c * tensor.columns, tensor.columns, quantized);
    for (int64_t row = 0; row < tensor.rows; ++row) {
      const Expected expected = ExpectedResult(tensor, row, seen);
      ASSERT_NEAR(out[c * tensor.rows + row], expected.value, Tolerance(expected.magnitude, steps))
          << tensor.name << " batch row " << c << " output " << row;
    }
  }
}

class MatMulTest : public ::testing::TestWithParam<Isa> {};

TEST_P(MatMulTest, EveryTypeAgreesWithDoublePrecision) {
  ThreadTeam team(2);
  HugeMemory memory;
  for (TensorType type : kTypes) {
    const int64_t unit = IsFloat(type) ? 1 : BlockElements(type);
    for (int64_t rows : {1, 16, 37}) {
      for (int64_t columns : {unit, 5 * unit, int64_t{512}}) {
        const OwnedTensor tensor = RandomTensor(type, rows, columns, 7 * rows + columns);
        const PackedMatrix matrix = PackedMatrix::Pack(tensor.view, /*as_f32=*/false, team, memory);
        ASSERT_EQ(matrix.is_float(), IsFloat(type));
        ASSERT_EQ(matrix.rows(), rows);
        ASSERT_EQ(matrix.columns(), columns);
        for (int64_t count : {1, 8, 17}) {
          const std::vector<float> x = RandomRows(count, columns, 3);
          ExpectIsProduct(Product(GetParam(), matrix, x.data(), count, 2), tensor.view, x, !IsFloat(type));
        }
      }
    }
  }
}

TEST_P(MatMulTest, AsF32MultipliesTheDequantisedWeightsWithUnroundedActivations) {
  ThreadTeam team(2);
  HugeMemory memory;
  for (TensorType type : kTypes) {
    const OwnedTensor tensor = RandomTensor(type, 21, 512, 11);
    const PackedMatrix matrix = PackedMatrix::Pack(tensor.view, /*as_f32=*/true, team, memory);
    ASSERT_TRUE(matrix.is_float());
    const std::vector<float> x = RandomRows(9, 512, 4);
    ExpectIsProduct(Product(GetParam(), matrix, x.data(), 9, 2), tensor.view, x, /*quantized=*/false);
  }
}

TEST_P(MatMulTest, ARowOfTheResultIsTheSameInAnyBatchAndWithAnyNumberOfThreads) {
  ThreadTeam team(1);
  HugeMemory memory;
  for (TensorType type : kTypes) {
    const OwnedTensor tensor = RandomTensor(type, 150, 768, 5);
    for (bool as_f32 : {false, true}) {
      const PackedMatrix matrix = PackedMatrix::Pack(tensor.view, as_f32, team, memory);
      const std::vector<float> x = RandomRows(33, 768, 6);
      std::vector<float> alone;
      for (int64_t c = 0; c < 33; ++c) {
        const std::vector<float> row = Product(GetParam(), matrix, x.data() + c * 768, 1, 1);
        alone.insert(alone.end(), row.begin(), row.end());
      }
      for (int64_t count : kBatches) {
        const std::vector<float> expected(alone.begin(), alone.begin() + count * 150);
        for (int threads : {1, 2, 5}) {
          ASSERT_EQ(Bits(Product(GetParam(), matrix, x.data(), count, threads)), Bits(expected))
              << tensor.view.name << " as_f32 " << as_f32 << " batch " << count << " threads " << threads;
        }
      }
    }
  }
}

TEST_P(MatMulTest, IntegerTypesGiveTheSameBitsWhereverProductsAreFused) {
  const Isa like = GetParam() == Isa::kBaseline ? Isa::kBaseline : Isa::kAvx2;
  ThreadTeam team(1);
  HugeMemory memory;
  for (TensorType type : kTypes) {
    if (IsFloat(type)) continue;
    const OwnedTensor tensor = RandomTensor(type, 40, 1536, 21);
    const PackedMatrix matrix = PackedMatrix::Pack(tensor.view, /*as_f32=*/false, team, memory);
    const std::vector<float> x = RandomRows(11, 1536, 22);
    const std::vector<float> product = Product(GetParam(), matrix, x.data(), 11, 1);
    ASSERT_EQ(Bits(product), Bits(Product(like, matrix, x.data(), 11, 1))) << tensor.view.name;
    // The baseline rounds each product before it is added.
    const std::vector<float> baseline = Product(Isa::kBaseline, matrix, x.data(), 11, 1);
    const float largest = std::abs(*std::max_element(baseline.begin(), baseline.end(),
                                                     [](float a, float b) { return std::abs(a) < std::abs(b); }));
    for (size_t i = 0; i < product.size(); ++i) {
      ASSERT_NEAR(product[i], baseline[i], 1e-5f * largest) << tensor.view.name << " " << i;
    }
  }
}

TEST_P(MatMulTest, ExtremeValuesDoNotSaturate) {
  ThreadTeam team(1);
  HugeMemory memory;
  for (TensorType type : kTypes) {
    if (IsFloat(type)) continue;
    for (uint8_t fill : {0x00, 0x80, 0x7f, 0xff}) {
      OwnedTensor tensor = RandomTensor(type, 16, 256, 31);
      // All values alike, scales as they are.
      const OwnedTensor scales = tensor;
      for (uint8_t& byte : tensor.bytes) byte = fill;
      for (size_t at = 0; at < tensor.bytes.size(); at += BlockBytes(type)) {
        for (int field : HalfFields(type)) std::memcpy(&tensor.bytes[at + field], &scales.bytes[at + field], 2);
      }
      tensor.view.data = tensor.bytes.data();
      const PackedMatrix matrix = PackedMatrix::Pack(tensor.view, /*as_f32=*/false, team, memory);
      for (float sign : {1.0f, -1.0f}) {
        const std::vector<float> x(2 * 256, sign);  // quantised to 127 everywhere
        ExpectIsProduct(Product(GetParam(), matrix, x.data(), 2, 1), tensor.view, x, /*quantized=*/true);
      }
    }
  }
}

TEST_P(MatMulTest, BiasIsAddedAndNothingIsWrittenPastTheRows) {
  ThreadTeam team(1);
  HugeMemory memory;
  for (TensorType type : {TensorType::kF16, TensorType::kQ4_1}) {
    const OwnedTensor tensor = RandomTensor(type, 37, 96, 41);
    const PackedMatrix matrix = PackedMatrix::Pack(tensor.view, /*as_f32=*/false, team, memory);
    const std::vector<float> x = RandomRows(10, 96, 42), bias = RandomRows(1, 37, 43);
    const std::vector<float> plain = Product(GetParam(), matrix, x.data(), 10, 2);
    const std::vector<float> out = Product(GetParam(), matrix, x.data(), 10, 2, bias.data(), /*out_stride=*/41);
    for (int64_t c = 0; c < 10; ++c) {
      for (int64_t row = 0; row < 37; ++row) ASSERT_EQ(out[c * 41 + row], plain[c * 37 + row] + bias[row]);
      for (int64_t row = 37; row < 41; ++row) ASSERT_EQ(out[c * 41 + row], -77.0f);
    }
  }
}

TEST_P(MatMulTest, ActivationsAreRoundedToNearestAndScaledByTheirLargest) {
  std::vector<float> x = RandomRows(3, 64, 51);
  for (int i = 0; i < 32; ++i) x[i] = 0;
  std::vector<ActivationBlock> blocks(6);
  MatMulKernelsOf(GetParam()).quantize(x.data(), 3, 64, 0, 2, blocks.data());
  // A panel of two rows, then one of one.
  auto expect_is = [&](const auto& block, int row, const float* values) {
    float largest = 0;
    for (int i = 0; i < 32; ++i) largest = std::max(largest, std::abs(values[i]));
    EXPECT_EQ(block.scale[row], largest / 127.0f);
    int half[2] = {0, 0};
    for (int i = 0; i < 32; ++i) {
      const float inverse = largest == 0 ? 0.0f : 127.0f / largest;
      const int8_t value = block.values[i / 4][row][i % 4];
      EXPECT_EQ(value, std::nearbyint(values[i] * inverse));
      half[i / 16] += value;
    }
    EXPECT_EQ(block.negative_half[0][row], -half[0]);
    EXPECT_EQ(block.negative_half[1][row], -half[1]);
    EXPECT_EQ(block.negative_sum[row], -half[0] - half[1]);
    EXPECT_EQ(block.scaled_sum[row], block.scale[row] * static_cast<float>(half[0] + half[1]));
  };
  const auto* pair = reinterpret_cast<const PanelBlock<2>*>(blocks.data());
  for (int b = 0; b < 2; ++b) {
    for (int row = 0; row < 2; ++row) expect_is(pair[b], row, &x[row * 64 + b * 32]);
    expect_is(blocks[4 + b], 0, &x[2 * 64 + b * 32]);
  }
}

TEST_P(MatMulTest, RowsAreFilledBeforeTheyAreRounded) {
  HugeMemory memory;
  for (TensorType type : {TensorType::kQ4_1, TensorType::kF16}) {
    for (int threads : {1, 3}) {
      ThreadTeam team(threads);
      const OwnedTensor tensor = RandomTensor(type, 20, 256, 55);
      const PackedMatrix matrix = PackedMatrix::Pack(tensor.view, /*as_f32=*/false, team, memory);
      for (int64_t count : {1, 6, 16, 29, 50}) {
        const std::vector<float> x = RandomRows(count, 256, 56);
        std::vector<float> filled(x.size()), out(count * 20);
        Activations activations;
        activations.Set(filled.data(), count, 256, !matrix.is_float(), team, [&](int64_t first, int64_t last) {
          std::copy(x.begin() + first * 256, x.begin() + last * 256, filled.begin() + first * 256);
        });
        const MatMulTask task[] = {{&matrix, nullptr, out.data(), 20}};
        MatMulWith(MatMulKernelsOf(GetParam()), task, activations, team);
        EXPECT_EQ(Bits(out), Bits(Product(GetParam(), matrix, x.data(), count, 1))) << count << " rows";
      }
    }
  }
}

TEST_P(MatMulTest, AnInfiniteOrMissingActivationMakesItsRowNaNAndNoOther) {
  ThreadTeam team(1);
  HugeMemory memory;
  for (TensorType type : {TensorType::kQ4_0, TensorType::kQ4_1, TensorType::kQ6_K}) {
    const OwnedTensor tensor = RandomTensor(type, 20, 256, 61);
    const PackedMatrix matrix = PackedMatrix::Pack(tensor.view, /*as_f32=*/false, team, memory);
    std::vector<float> x = RandomRows(3, 256, 62);
    const std::vector<float> sound = Product(GetParam(), matrix, x.data(), 3, 1);
    x[0 * 256 + 70] = std::numeric_limits<float>::infinity();
    x[2 * 256 + 71] = std::numeric_limits<float>::quiet_NaN();
    const std::vector<float> out = Product(GetParam(), matrix, x.data(), 3, 1);
    for (int64_t row = 0; row < 20; ++row) {
      EXPECT_TRUE(std::isnan(out[row]));
      EXPECT_EQ(out[20 + row], sound[20 + row]);
      EXPECT_TRUE(std::isnan(out[40 + row]));
    }
  }
}

TEST_P(MatMulTest, SeveralMatricesInOneCallGiveWhatEachGivesAlone) {
  ThreadTeam team(3);
  HugeMemory memory;
  const OwnedTensor a = RandomTensor(TensorType::kQ4_1, 200, 256, 71), b = RandomTensor(TensorType::kQ8_0, 50, 256, 72),
                    c = RandomTensor(TensorType::kF16, 90, 256, 73);
  const PackedMatrix first = PackedMatrix::Pack(a.view, false, team, memory),
                     second = PackedMatrix::Pack(b.view, false, team, memory),
                     third = PackedMatrix::Pack(c.view, false, team, memory);
  const std::vector<float> x = RandomRows(5, 256, 74);
  Activations activations;
  activations.Set(x.data(), 5, 256, /*quantized=*/true, team);
  std::vector<float> out_first(5 * 200), out_second(5 * 50), out_third(5 * 90);
  const MatMulTask tasks[] = {{&first, nullptr, out_first.data(), 200},
                              {&second, nullptr, out_second.data(), 50},
                              {&third, nullptr, out_third.data(), 90}};
  MatMulWith(MatMulKernelsOf(GetParam()), tasks, activations, team);
  EXPECT_THAT(out_first, ElementsAreArray(Product(GetParam(), first, x.data(), 5, 1)));
  EXPECT_THAT(out_second, ElementsAreArray(Product(GetParam(), second, x.data(), 5, 1)));
  EXPECT_THAT(out_third, ElementsAreArray(Product(GetParam(), third, x.data(), 5, 1)));
}

TEST_P(MatMulTest, AnEmptyBatchWritesNothing) {
  ThreadTeam team(1);
  HugeMemory memory;
  const OwnedTensor tensor = RandomTensor(TensorType::kQ4_1, 20, 64, 81);
  const PackedMatrix matrix = PackedMatrix::Pack(tensor.view, false, team, memory);
  EXPECT_THAT(Product(GetParam(), matrix, nullptr, 0, 1), ::testing::IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(Isas, MatMulTest, ::testing::ValuesIn(SupportedIsas()),
                         [](const auto& info) { return std::string(IsaName(info.param)); });

TEST(PackedMatrixTest, RowsAreReadAsTheTensorHasThem) {
  ThreadTeam team(1);
  for (const TensorType type : kTypes) {
    HugeMemory memory;
    const OwnedTensor tensor = RandomTensor(type, 19, 512, 7);
    for (const bool as_f32 : {false, true}) {
      const PackedMatrix matrix = PackedMatrix::Pack(tensor.view, as_f32, team, memory);
      std::vector<float> expected(512), row(512);
      for (int64_t i = 0; i < 19; ++i) {
        DequantizeRow(tensor.view, i, expected.data());
        matrix.ReadRow(i, row.data());
        ASSERT_EQ(Bits(row), Bits(expected)) << TensorTypeName(type) << (as_f32 ? " as float32" : "") << ", row " << i;
      }
    }
  }
}

TEST(PackedMatrixTest, FourBitTypesStayAsSmallAsTheirSource) {
  ThreadTeam team(1);
  HugeMemory memory;
  for (TensorType type : {TensorType::kQ4_0, TensorType::kQ4_1, TensorType::kQ8_0, TensorType::kF16}) {
    const OwnedTensor tensor = RandomTensor(type, 64, 576, 91);
    EXPECT_EQ(PackedMatrix::Pack(tensor.view, false, team, memory).bytes(), tensor.view.bytes());
  }
}

TEST(PackedMatrixDeathTest, ColumnsThatFillNoBlockAreABug) {
  ThreadTeam team(1);
  HugeMemory memory;
  OwnedTensor tensor = RandomTensor(TensorType::kQ4_1, 4, 64, 92);
  tensor.view.columns = 48;
  EXPECT_DEATH(PackedMatrix::Pack(tensor.view, false, team, memory), "columns");
}

}  // namespace
}  // namespace tidepool
