#include <cmath>
#include <random>

#include "tests/worker/kernels/cuda/device_fixture.h"
#include "tests/worker/kernels/random_tensor.h"
#include "worker/backend/cuda/device_weights.h"
#include "worker/kernels/cuda/mat_tile_body.h"
#include "worker/kernels/cuda/rows_body.h"

namespace tidepool::cuda {
namespace {

constexpr TensorType kTypes[] = {TensorType::kF32,  TensorType::kF16,  TensorType::kBF16, TensorType::kQ4_0,
                                 TensorType::kQ4_1, TensorType::kQ5_0, TensorType::kQ5_1, TensorType::kQ8_0,
                                 TensorType::kQ4_K, TensorType::kQ5_K, TensorType::kQ6_K};

class MatricesTest : public DeviceTest, public testing::WithParamInterface<TensorType> {
 protected:
  // Lives as long as the test.
  const DeviceMatrix& Load(const TensorView& tensor) {
    matrices_.push_back(*LoadMatrix(tensor, device_.get(), team_));
    return matrices_.back()->matrix;
  }
  int64_t Columns(int blocks) const { return int64_t{blocks} * std::max(32, BlockElements(GetParam())); }
  static std::vector<float> Rows(const TensorView& tensor) {
    std::vector<float> values(tensor.rows * tensor.columns);
    for (int64_t row = 0; row < tensor.rows; ++row) DequantizeRow(tensor, row, values.data() + row * tensor.columns);
    return values;
  }
  std::vector<float> Numbers(size_t count, float scale) {
    std::vector<float> values(count);
    for (float& x : values) x = scale * normal_(random_);
    return values;
  }
  ThreadTeam team_{2};
  std::vector<std::unique_ptr<LoadedMatrix>> matrices_;
  std::mt19937 random_{11};
  std::normal_distribution<float> normal_;
};

TEST_P(MatricesTest, DequantizedAsInTheFile) {
  const OwnedTensor tensor = RandomTensor(GetParam(), 5, Columns(3), 1);
  const std::vector<float> expected = Rows(tensor.view);
  const DeviceMatrix& matrix = Load(tensor.view);
  float* floats = Make<float>(expected.size());
  auto* halves = Make<uint16_t>(expected.size());
  device_->Launch<Dequantize>({CeilDiv(static_cast<int64_t>(expected.size() / kBlock), Dequantize::kThreads)},
                              {matrix, halves, floats});
  const std::vector<float> got = Download(floats, expected.size());
  const std::vector<uint16_t> got_halves = Download(halves, expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_NEAR(got[i], expected[i], 1e-6 * std::abs(expected[i])) << i;  // a fused multiply-add may differ
    ASSERT_EQ(got_halves[i], FloatToHalf(ClampedToHalfRange(got[i])));
  }
  const std::vector<int32_t> tokens = {4, 0, 4};
  float* x = Make<float>(3 * tensor.view.columns);
  device_->Launch<Embed>({3}, {matrix, Upload(tokens), x});
  const std::vector<float> rows = Download(x, 3 * tensor.view.columns);
  for (size_t i = 0; i < rows.size(); ++i) {
    ASSERT_EQ(rows[i], got[tokens[i / tensor.view.columns] * tensor.view.columns + i % tensor.view.columns]);
  }
}

template <class Kernel>
void RunMatVec(Device& device, const DeviceMatrix& a, const DeviceMatrix& b, const float* bias,
               const DeviceActivations& x, int count, bool add, float* out_a, float* out_b) {
  MatVecArgs args;
  args.parts[0] = {a, bias, out_a, a.rows, 0};
  args.parts[1] = {b, nullptr, out_b, b.rows, Kernel::Ctas(a.rows)};
  args.part_count = 2;
  args.x = x;
  args.count = count;
  args.add = add;
  device.Launch<Kernel>({Kernel::Ctas(a.rows) + Kernel::Ctas(b.rows)}, args);
}

// The kernel that the backend takes for so many rows.
template <MatrixFormat kFormat>
void RunForCount(Device& device, const DeviceMatrix& a, const DeviceMatrix& b, const float* bias,
                 const DeviceActivations& x, int count, bool add, float* out_a, float* out_b) {
  auto run = [&]<class Kernel>() { RunMatVec<Kernel>(device, a, b, bias, x, count, add, out_a, out_b); };
  if (count == 1 && a.columns < 1024) return run.template operator()<MatVec<kFormat, 1, 32>>();
  if (count == 1) return run.template operator()<MatVec<kFormat, 1, 128>>();
  if constexpr (FactsOf(kFormat).scales == 0) {
    if (count <= 2) return run.template operator()<MatVec<kFormat, 4, 32>>();
    if (count <= 4) return run.template operator()<MatVec<kFormat, 4, 128>>();
    run.template operator()<MatVec<kFormat, 8, 128>>();
  } else {
    if (count <= 8) return run.template operator()<MatTile<kFormat, 1>>();
    if (count <= 16) return run.template operator()<MatTile<kFormat, 2>>();
    if (count <= 32) return run.template operator()<MatTile<kFormat, 4>>();
    run.template operator()<MatTile<kFormat, 8>>();
  }
}

TEST_P(MatricesTest, VectorProductsEqualTheSumInDouble) {
  for (const auto& [rows, blocks] : {std::pair{19, 3}, {8, 1}, {33, 40}}) {
    const OwnedTensor a = RandomTensor(GetParam(), rows, Columns(blocks), 2),
                      b = RandomTensor(GetParam(), 7, Columns(blocks), 3);
    const DeviceMatrix& on_a = Load(a.view);
    const DeviceMatrix& on_b = Load(b.view);
    const auto columns = static_cast<size_t>(a.view.columns);
    const std::vector<float> weights_a = Rows(a.view), weights_b = Rows(b.view);
    const std::vector<float> bias = Numbers(rows, 1);
    for (int count : {1, 2, 3, 8, 11, 27, 50}) {
      if (count > 8 && FactsOf(on_a.format).scales == 0) continue;
      const std::vector<float> x = Numbers(count * columns, 1), before = Numbers(count * rows, 1);
      PrepareRows::Args prepare{.op = PrepareRows::Op::kCopy, .columns = static_cast<int32_t>(columns), .x = Upload(x)};
      prepare.floats = Make<float>(x.size());
      prepare.halves = Make<uint16_t>(x.size());
      prepare.values = Make<int8_t>(x.size());
      prepare.scales = Make<float>(x.size() / kBlock);
      prepare.sums = Make<float>(x.size() / kBlock);
      device_->Launch<PrepareRows>({count, 2}, prepare);
      const bool tiles = count > 1 && FactsOf(on_a.format).scales != 0;
      // What the kernel is to multiply by: the activations as they are, as they were quantised, or as halves.
      std::vector<float> used = x;
      if (tiles) {
        const std::vector<uint16_t> halves = Download(prepare.halves, x.size());
        for (size_t i = 0; i < x.size(); ++i) used[i] = HalfToFloat(halves[i]);
      } else if (FactsOf(on_a.format).scales != 0) {
        const std::vector<int8_t> values = Download(prepare.values, x.size());
        const std::vector<float> scales = Download(prepare.scales, x.size() / kBlock);
        for (size_t i = 0; i < x.size(); ++i) {
          used[i] = static_cast<float>(values[i]) * scales[i / kBlock];
          ASSERT_NEAR(used[i], x[i], 0.5001 * scales[i / kBlock]);
        }
      }
      const DeviceActivations activations{prepare.floats, prepare.halves, prepare.values, prepare.scales, prepare.sums};
      for (bool add : {false, true}) {
        float* out_a = Upload(before);
        float* out_b = Make<float>(count * 7);
        ForFormat(on_a.format, [&]<MatrixFormat kFormat>() {
          RunForCount<kFormat>(*device_, on_a, on_b, Upload(bias), activations, count, add, out_a, out_b);
        });
        const std::vector<float> got_a = Download(out_a, before.size());
        const std::vector<float> got_b = add ? std::vector<float>() : Download(out_b, count * 7);
        for (int c = 0; c < count; ++c) {
          auto check = [&](const std::vector<float>& weights, int row, float got, double expected) {
            double size = std::abs(expected);
            for (size_t i = 0; i < columns; ++i) {
              const double term = double{weights[row * columns + i]} * used[c * columns + i];
              expected += term;
              size += std::abs(term);
            }
            // Tiles round scale, minimum and weight to halves.
            ASSERT_NEAR(got, expected, (tiles ? 1.5e-3 : 3e-6) * size + 1e-6)
                << TensorTypeName(GetParam()) << ", row " << row << ", x " << c;
          };
          for (int row = 0; row < rows; ++row) {
            check(weights_a, row, got_a[c * rows + row], double{bias[row]} + (add ? before[c * rows + row] : 0.0f));
          }
          for (int row = 0; row < 7 && !add; ++row) check(weights_b, row, got_b[c * 7 + row], 0);
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Types, MatricesTest, testing::ValuesIn(kTypes),
                         [](const auto& test) { return std::string(TensorTypeName(test.param)); });

class PrepareTest : public DeviceTest {};

TEST_F(PrepareTest, NormalisesAndMultiplies) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  for (int columns : {32, 576, 1056}) {
    std::vector<float> x(3 * columns), up(2 * columns), weight(columns);
    for (auto* values : {&x, &up, &weight}) {
      for (float& value : *values) value = 3 * normal(random);
    }
    const std::vector<int32_t> rows = {2, 0};
    PrepareRows::Args args{.op = PrepareRows::Op::kNorm, .columns = columns, .x = Upload(x), .row = Upload(rows)};
    args.weight = Upload(weight);
    args.epsilon = 0.25f;  // large enough to be missed
    args.floats = Make<float>(2 * columns);
    args.halves = Make<uint16_t>(2 * columns);
    device_->Launch<PrepareRows>({2, 1}, args);
    const std::vector<float> got = Download(args.floats, 2 * columns);
    const std::vector<uint16_t> halves = Download(args.halves, 2 * columns);
    for (int i = 0; i < 2; ++i) {
      double squares = 0;
      for (int c = 0; c < columns; ++c) squares += double{x[rows[i] * columns + c]} * x[rows[i] * columns + c];
      for (int c = 0; c < columns; ++c) {
        const double expected = x[rows[i] * columns + c] / std::sqrt(squares / columns + 0.25) * weight[c];
        ASSERT_NEAR(got[i * columns + c], expected, 1e-5 * (1 + std::abs(expected)));
        ASSERT_EQ(halves[i * columns + c], FloatToHalf(got[i * columns + c]));
      }
    }
    PrepareRows::Args silu{.op = PrepareRows::Op::kSilu, .columns = columns, .x = Upload(x)};
    silu.up = Upload(up);
    silu.floats = Make<float>(2 * columns);
    device_->Launch<PrepareRows>({2, 3}, silu);
    const std::vector<float> multiplied = Download(silu.floats, 2 * columns);
    for (int i = 0; i < 2 * columns; ++i) {
      const double expected = x[i] / (1 + std::exp(-double{x[i]})) * up[i];
      ASSERT_NEAR(multiplied[i], expected, 1e-5 * (1 + std::abs(expected)));
    }
  }
}

TEST_F(PrepareTest, NumbersThatAreNotFiniteShow) {
  std::vector<float> x(64, 1.0f);
  x[3] = std::nanf("");
  PrepareRows::Args args{.op = PrepareRows::Op::kCopy, .columns = 64, .x = Upload(x)};
  args.values = Make<int8_t>(64);
  args.scales = Make<float>(2);
  args.sums = Make<float>(2);
  device_->Launch<PrepareRows>({1, 1}, args);
  const std::vector<float> scales = Download(args.scales, 2);
  EXPECT_TRUE(std::isnan(scales[0]));
  EXPECT_FALSE(std::isnan(scales[1]));
}

}  // namespace
}  // namespace tidepool::cuda
