// Each tensor type bit for bit against the reference package (make_dequant_golden.py).
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "tests/support/paths.h"
#include "worker/model/tensor_view.h"

namespace tidepool {
namespace {

constexpr int64_t kRows = 2;

class DequantizeTest : public testing::TestWithParam<TensorType> {};

TEST_P(DequantizeTest, RowsAreTheReferenceBitForBit) {
  const TensorType type = GetParam();
  const std::string path = test::DataPath(std::string("dequant/") + TensorTypeName(type));
  const std::string blocks = test::ReadFile(path + ".blocks"), expected = test::ReadFile(path + ".f32");
  ASSERT_GT(expected.size(), 0u);
  TensorView tensor;
  tensor.type = type;
  tensor.rows = kRows;
  tensor.columns = static_cast<int64_t>(expected.size() / sizeof(float)) / kRows;
  tensor.data = reinterpret_cast<const uint8_t*>(blocks.data());
  ASSERT_EQ(tensor.bytes(), blocks.size());
  std::vector<float> row(static_cast<size_t>(tensor.columns));
  for (int64_t r = 0; r < kRows; ++r) {
    DequantizeRow(tensor, r, row.data());
    const char* reference = expected.data() + r * tensor.columns * static_cast<int64_t>(sizeof(float));
    for (int64_t c = 0; c < tensor.columns; ++c) {
      float wanted;
      std::memcpy(&wanted, reference + c * static_cast<int64_t>(sizeof(float)), sizeof wanted);
      ASSERT_EQ(std::memcmp(&row[c], &wanted, sizeof wanted), 0)
          << "row " << r << " column " << c << ": " << row[c] << ", reference " << wanted;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(AllTypes, DequantizeTest,
                         testing::Values(TensorType::kF32, TensorType::kF16, TensorType::kBF16, TensorType::kQ4_0,
                                         TensorType::kQ4_1, TensorType::kQ5_0, TensorType::kQ5_1, TensorType::kQ8_0,
                                         TensorType::kQ4_K, TensorType::kQ5_K, TensorType::kQ6_K),
                         [](const auto& info) { return std::string(TensorTypeName(info.param)); });

TEST(TensorTypeTest, OnlyTheElevenReadableTypesAreSupported) {
  int supported = 0;
  for (uint32_t id = 0; id < 64; ++id) supported += IsSupportedTensorType(id);
  EXPECT_EQ(supported, 11);
  EXPECT_FALSE(IsSupportedTensorType(4));  // Q4_2, withdrawn
  EXPECT_FALSE(IsSupportedTensorType(0xffffffffu));
}

TEST(TensorTypeDeathTest, RowsOutsideTheTensorAreABug) {
  const float data[2] = {1, 2};
  TensorView tensor;
  tensor.rows = 1;
  tensor.columns = 2;
  tensor.data = reinterpret_cast<const uint8_t*>(data);
  float out[2];
  EXPECT_DEATH(DequantizeRow(tensor, 1, out), "check failed");
}

}  // namespace
}  // namespace tidepool
