#include "policies/retain/kivi.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "gtest/gtest.h"
#include "tests/policies/golden.h"

namespace tidepool {
namespace {

using test::ExpectClose;
using test::GoldenCases;
using test::Tensor;
using test::ToTensor;

// Matrices of one head of a [heads][rows][columns] tensor.
absl::Span<const float> Head(const Tensor& tensor, int head) {
  const size_t size = static_cast<size_t>(tensor.shape[1]) * tensor.shape[2];
  return absl::MakeConstSpan(tensor.data).subspan(head * size, size);
}

std::vector<float> Normal(int count, int seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> out(count);
  for (float& x : out) x = normal(random);
  return out;
}

TEST(KiviTest, CodesScalesAndRestoredRowsEqualTheReference) {
  int runs = 0;
  for (const auto& json : GoldenCases("kivi")) {
    if (!json.contains("k")) continue;
    ++runs;
    SCOPED_TRACE(json.at("name").get<std::string>());
    const KiviFormat format = {.bits = json.at("params").at("bits"), .group = json.at("params").at("group")};
    const Tensor keys = ToTensor(json.at("k")), values = ToTensor(json.at("v"));
    const auto& expect = json.at("expect");
    const int head_dim = keys.shape[2];
    for (int head = 0; head < keys.shape[0]; ++head) {
      const KiviRows key_rows = QuantizeKeys(Head(keys, head), head_dim, format);
      const KiviRows value_rows = QuantizeValues(Head(values, head), head_dim, format);
      EXPECT_EQ(key_rows.words.size() * 32, Head(keys, head).size() * format.bits);
      EXPECT_EQ(value_rows.words.size() * 32, Head(values, head).size() * format.bits);
      for (int token = 0; token < keys.shape[1]; ++token) {
        for (int channel = 0; channel < head_dim; ++channel) {
          ASSERT_EQ(KeyCode(key_rows, head_dim, format, token, channel),
                    expect.at("k_code")[head][token][channel].get<uint32_t>());
          ASSERT_EQ(ValueCode(value_rows, head_dim, format, token, channel),
                    expect.at("v_code")[head][token][channel].get<uint32_t>());
        }
      }
      ExpectClose(key_rows.scale, Head(ToTensor(expect.at("k_scale")), head));
      ExpectClose(key_rows.minimum, Head(ToTensor(expect.at("k_min")), head));
      ExpectClose(DequantizeKeys(key_rows, head_dim, format), Head(ToTensor(expect.at("k_deq")), head));
      ExpectClose(value_rows.scale, Head(ToTensor(expect.at("v_scale")), head));
      ExpectClose(value_rows.minimum, Head(ToTensor(expect.at("v_min")), head));
      ExpectClose(DequantizeValues(value_rows, head_dim, format), Head(ToTensor(expect.at("v_deq")), head));
    }
  }
  EXPECT_EQ(runs, 3);
}

TEST(KiviTest, ResidualsEqualTheReference) {
  int runs = 0;
  for (const auto& json : GoldenCases("kivi")) {
    if (json.at("name") != "split") continue;
    for (const auto& value : json.at("expect").at("values")) {
      ++runs;
      const KiviSplit split = SplitForKivi(value[0], value[1]);
      EXPECT_EQ(split.keys, value[2].get<int>());
      EXPECT_EQ(split.values, value[3].get<int>());
    }
  }
  EXPECT_EQ(runs, 7);
}

TEST(KiviTest, KeysAreFlushedAResidualAtATimeAndValuesOneByOne) {
  constexpr int kResidual = 32;
  KiviSplit before;
  for (int tokens = 1; tokens < 200; ++tokens) {
    const KiviSplit split = SplitForKivi(tokens, kResidual);
    EXPECT_EQ(split.keys - before.keys, tokens % kResidual == 0 ? kResidual : 0);
    EXPECT_EQ(split.values - before.values, tokens > kResidual ? 1 : 0);
    before = split;
  }
}

TEST(KiviTest, WordsHoldTheFirstCodeInTheirLowestBits) {
  const KiviFormat format = {.bits = 2, .group = 16};
  // Two channels of 16 tokens; in channel 1 the tokens hold 0, 1, 2, 3, 0, 1, 2, 3 ...
  std::vector<float> keys;
  for (int token = 0; token < 16; ++token) {
    keys.push_back(token == 0 ? 3.0f : 0.0f);
    keys.push_back(static_cast<float>(token % 4));
  }
  const KiviRows rows = QuantizeKeys(keys, 2, format);
  EXPECT_EQ(rows.words, (std::vector<uint32_t>{3, 0xE4E4E4E4}));
  // The same numbers along the channels of one token.
  std::vector<float> values;
  for (int channel = 0; channel < 16; ++channel) values.push_back(static_cast<float>(channel % 4));
  EXPECT_EQ(QuantizeValues(values, 16, format).words, std::vector<uint32_t>{0xE4E4E4E4});
}

TEST(KiviTest, TheErrorIsAtMostHalfAStep) {
  for (const int bits : {2, 4, 8}) {
    const KiviFormat format = {.bits = bits, .group = 16};
    const int head_dim = 32, tokens = 48;
    const std::vector<float> x = Normal(tokens * head_dim, bits);
    const KiviRows keys = QuantizeKeys(x, head_dim, format), values = QuantizeValues(x, head_dim, format);
    const std::vector<float> from_keys = DequantizeKeys(keys, head_dim, format);
    const std::vector<float> from_values = DequantizeValues(values, head_dim, format);
    for (int token = 0; token < tokens; ++token) {
      for (int channel = 0; channel < head_dim; ++channel) {
        const int i = token * head_dim + channel;
        EXPECT_NEAR(from_keys[i], x[i], 0.5001f * keys.scale[token / 16 * head_dim + channel] + 1e-6f);
        EXPECT_NEAR(from_values[i], x[i], 0.5001f * values.scale[token * 2 + channel / 16] + 1e-6f);
      }
    }
  }
}

TEST(KiviTest, ConstantGroupsAreExact) {
  const KiviFormat format = {.bits = 4, .group = 8};
  const std::vector<float> x(8 * 8, -1.25f);
  const KiviRows keys = QuantizeKeys(x, 8, format);
  EXPECT_EQ(keys.scale, std::vector<float>(8, 0.0f));
  EXPECT_EQ(DequantizeKeys(keys, 8, format), x);
  EXPECT_EQ(DequantizeValues(QuantizeValues(x, 8, format), 8, format), x);
}

TEST(KiviTest, HalfScalesAreWhatFp16HoldsAndTheCodesStay) {
  KiviFormat format = {.bits = 4, .group = 32};
  std::vector<float> x = Normal(32 * 32, 5);
  for (int i = 0; i < 32; ++i) x[i * 32] *= 1e-6f;        // a channel whose scale is subnormal in fp16
  for (int i = 0; i < 32; ++i) x[i * 32 + 1] = 1e6f * i;  // and one beyond its range
  const KiviRows exact = QuantizeKeys(x, 32, format);
  format.half_scales = true;
  const KiviRows half = QuantizeKeys(x, 32, format);
  EXPECT_EQ(half.words, exact.words);
  for (size_t i = 2; i < half.scale.size(); ++i) {
    EXPECT_NEAR(half.scale[i], exact.scale[i], exact.scale[i] * std::ldexp(1.0f, -11));
    // 11 significant bits: scaled to an 11-bit number it is whole.
    int exponent;
    const float mantissa = std::frexp(half.scale[i], &exponent);
    EXPECT_EQ(mantissa * 2048, std::nearbyint(mantissa * 2048));
  }
  EXPECT_EQ(std::remainder(half.scale[0], std::ldexp(1.0f, -24)), 0.0f);
  EXPECT_NEAR(half.scale[0], exact.scale[0], std::ldexp(1.0f, -25));
  EXPECT_EQ(half.scale[1], 65504.0f);
}

TEST(KiviTest, GroupsWithoutARangeHaveCodeZeroAndOthersAreUntouched) {
  const KiviFormat format = {.bits = 2, .group = 16};
  const float huge = std::numeric_limits<float>::max();
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), huge}) {
    std::vector<float> x = Normal(2 * 16, 9);
    x[3] = bad;
    x[4] = bad == huge ? -huge : x[4];  // a finite group whose range is not
    const KiviRows rows = QuantizeValues(x, 16, format);
    EXPECT_EQ(rows.scale[0], 0.0f);
    EXPECT_EQ(rows.words[0], 0u);
    EXPECT_GT(rows.scale[1], 0.0f);
    EXPECT_NE(rows.words[1], 0u);
  }
}

TEST(KiviTest, NoTokensGiveNoRows) {
  const KiviRows rows = QuantizeKeys({}, 8, {});
  EXPECT_EQ(rows.tokens, 0);
  EXPECT_TRUE(rows.words.empty());
  EXPECT_TRUE(DequantizeKeys(rows, 8, {}).empty());
}

}  // namespace
}  // namespace tidepool
