#include "policies/recall/k4_code.h"

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace tidepool {
namespace {

struct Segment {
  std::vector<uint8_t> codes;
  std::vector<float> minimum, scale;
};

Segment Encode(const std::vector<float>& keys, int tokens, int head_dim) {
  Segment out;
  out.codes.assign(K4CodeBytes(tokens, head_dim), 0xff);
  out.minimum.resize(head_dim);
  out.scale.resize(head_dim);
  EncodeK4(keys.data(), tokens, head_dim, out.codes.data(), out.minimum.data(), out.scale.data());
  return out;
}

std::vector<float> RandomKeys(int tokens, int head_dim, int seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> keys(static_cast<size_t>(tokens) * head_dim);
  for (float& key : keys) key = normal(random);
  return keys;
}

TEST(K4CodeTest, EachKeyIsWithinHalfAStepOfItsCode) {
  for (int tokens : {1, 15, 16, 17, 64}) {
    const int head_dim = 64;
    const std::vector<float> keys = RandomKeys(tokens, head_dim, tokens);
    const Segment segment = Encode(keys, tokens, head_dim);
    for (int c = 0; c < head_dim; ++c) {
      std::vector<float> unit(head_dim, 0.0f);
      unit[c] = 1;
      for (int t = 0; t < tokens; ++t) {
        const float x =
            EstimateK4(unit.data(), segment.codes.data(), segment.minimum.data(), segment.scale.data(), head_dim, t);
        ASSERT_NEAR(x, keys[t * head_dim + c], segment.scale[c] * 0.5f + 1e-5f) << "token " << t << " channel " << c;
      }
    }
  }
}

TEST(K4CodeTest, ProductsAreWithinTheSumOfTheHalfSteps) {
  const int head_dim = 64, tokens = 64;
  const std::vector<float> keys = RandomKeys(tokens, head_dim, 1), query = RandomKeys(1, head_dim, 2);
  const Segment segment = Encode(keys, tokens, head_dim);
  double bound = 1e-4;
  for (int c = 0; c < head_dim; ++c) bound += std::abs(query[c]) * segment.scale[c] * 0.5;
  double squares = 0;
  for (int t = 0; t < tokens; ++t) {
    double exact = 0;
    for (int c = 0; c < head_dim; ++c) exact += double{query[c]} * keys[t * head_dim + c];
    const double error = exact - EstimateK4(query.data(), segment.codes.data(), segment.minimum.data(),
                                            segment.scale.data(), head_dim, t);
    EXPECT_LE(std::abs(error), bound);
    squares += error * error;
  }
  // Rounding errors are independent: their root mean square is |q| * scale / sqrt(12), about 0.7 here.
  EXPECT_LT(std::sqrt(squares / tokens), 1.5);
}

TEST(K4CodeTest, TheLayoutIsTilesOfSixteenTokensInNibbles) {
  // Two channels; token t has code t mod 16 in channel 0 and 15 - t mod 16 in channel 1.
  const int tokens = 32;
  std::vector<float> keys;
  for (int t = 0; t < tokens; ++t) {
    keys.push_back(static_cast<float>(t % 16));
    keys.push_back(static_cast<float>(15 - t % 16));
  }
  const Segment segment = Encode(keys, tokens, 2);
  ASSERT_EQ(segment.codes.size(), 2u * 2 * 8);
  for (int tile = 0; tile < 2; ++tile) {
    for (int byte = 0; byte < 8; ++byte) {
      EXPECT_EQ(segment.codes[tile * 16 + byte], byte | (byte + 8) << 4);
      EXPECT_EQ(segment.codes[tile * 16 + 8 + byte], (15 - byte) | (7 - byte) << 4);
    }
  }
  EXPECT_EQ(segment.minimum, (std::vector<float>{0, 0}));
  EXPECT_EQ(segment.scale, (std::vector<float>{1, 1}));
}

TEST(K4CodeTest, TheLastTileIsPaddedWithZeros) {
  EXPECT_EQ(K4Tiles(17), 2);
  const Segment segment = Encode(RandomKeys(17, 4, 3), 17, 4);
  for (int c = 0; c < 4; ++c) {
    EXPECT_EQ(segment.codes[32 + c * 8] & 0xf0, 0);
    for (int byte = 1; byte < 8; ++byte) EXPECT_EQ(segment.codes[32 + c * 8 + byte], 0);
  }
}

TEST(K4CodeTest, AConstantChannelIsExact) {
  const std::vector<float> keys = {0.1f, 0.1f, 0.1f};
  const Segment segment = Encode(keys, 3, 1);
  EXPECT_EQ(segment.scale[0], 0.0f);
  const float one = 1;
  for (int t = 0; t < 3; ++t) {
    EXPECT_EQ(EstimateK4(&one, segment.codes.data(), segment.minimum.data(), segment.scale.data(), 1, t), 0.1f);
  }
}

TEST(K4CodeTest, NotANumberAndInfinityHaveACodeToo) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  const Segment segment = Encode({nan, 1, infinity, 2, nan, -infinity}, 3, 2);
  for (uint8_t code : segment.codes) EXPECT_LE(code & 15, 15);
  EXPECT_EQ(segment.codes[1], 0);  // token 1 of channel 0: infinite range or not a number
}

}  // namespace
}  // namespace tidepool
