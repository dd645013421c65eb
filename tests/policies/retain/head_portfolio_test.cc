#include "policies/retain/head_portfolio.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "gtest/gtest.h"

namespace tidepool {
namespace {

using Rows = std::vector<int32_t>;
constexpr TokenClass kOther = TokenClass::kOther;
constexpr TokenClass kSpecial = TokenClass::kSpecial;
constexpr TokenClass kPunctuation = TokenClass::kPunctuation;

// One query over ten keys; key 0 is a sink, 3 special, 5 and 7 punctuation.
const std::vector<TokenClass> kClasses = {kOther,       kOther, kOther,       kSpecial, kOther,
                                          kPunctuation, kOther, kPunctuation, kOther,   kOther};

Rows Positions(int count) {
  Rows positions(count);
  std::iota(positions.begin(), positions.end(), 0);
  return positions;
}

PortfolioChoice Choose(const std::vector<float>& attention, double least) {
  const Rows positions = Positions(10);
  PortfolioInput input;
  input.rows = {.positions = positions, .classes = kClasses, .sinks = 1};
  input.attention = attention;
  input.queries = 1;
  input.least_recovered = least;
  return ChooseHeadPolicy(FastGenPortfolio(), input);
}

TEST(HeadPortfolioTest, TheCheapestPolicyThatRecoversEnoughIsTaken) {
  const PortfolioChoice special = Choose({0.5f, 0, 0, 0.45f, 0, 0.05f, 0, 0, 0, 0}, 0.9);
  EXPECT_EQ(special.policy, 0);
  EXPECT_NEAR(special.recovered, 0.95, 1e-6);
  EXPECT_EQ(special.kept, (Rows{0, 3}));

  const PortfolioChoice punctuation = Choose({0.4f, 0, 0, 0.1f, 0, 0.3f, 0, 0.2f, 0, 0}, 0.9);
  EXPECT_EQ(punctuation.policy, 1);
  EXPECT_EQ(punctuation.kept, (Rows{0, 3, 5, 7}));

  const PortfolioChoice heavy = Choose({0.1f, 0.3f, 0.3f, 0, 0, 0, 0.25f, 0, 0.05f, 0}, 0.9);
  EXPECT_EQ(heavy.policy, 2);
  EXPECT_EQ(heavy.kept, (Rows{0, 1, 2, 3, 5, 6, 7}));  // three heavy hitters, 30 %

  const PortfolioChoice window = Choose({0.1f, 0.2f, 0.2f, 0, 0.1f, 0, 0.05f, 0.05f, 0.1f, 0.2f}, 0.9);
  EXPECT_EQ(window.policy, 3);
  EXPECT_EQ(window.kept, (Rows{0, 1, 2, 3, 4, 5, 7, 8, 9}));  // the window is 7, 8, 9: heavy hitters are before it

  const PortfolioChoice full = Choose(std::vector<float>(10, 0.1f), 0.95);
  EXPECT_EQ(full.policy, 4);
  EXPECT_EQ(full.kept.size(), 10u);
}

TEST(HeadPortfolioTest, WhenNoneRecoversEnoughTheLastIsTaken) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(Choose(std::vector<float>(10, 0.05f), 0.9).policy, 4);
  EXPECT_EQ(Choose(std::vector<float>(10, nan), 0.9).policy, 4);
  EXPECT_EQ(Choose(std::vector<float>(10, nan), 0.9).kept.size(), 10u);
}

TEST(HeadPortfolioTest, TheWindowMovesWithTheQuery) {
  // Each of four queries looks at itself and the key before it only.
  const std::vector<float> attention = {0.5f, 0.5f, 0,    0,    0,  //
                                        0,    0.5f, 0.5f, 0,    0,  //
                                        0,    0,    0.5f, 0.5f, 0,  //
                                        0,    0,    0,    0.5f, 0.5f};
  const std::vector<TokenClass> classes(5, kOther);
  const Rows positions = Positions(5);
  PortfolioInput input;
  input.rows = {.positions = positions, .classes = classes, .sinks = 0};
  input.attention = attention;
  input.queries = 4;
  const HeadPolicy window = {.window_share = 0.4};
  const PortfolioChoice choice = ChooseHeadPolicy({&window, 1}, input);
  EXPECT_NEAR(choice.recovered, 1.0, 1e-6);
  EXPECT_EQ(choice.kept, (Rows{3, 4}));
  const HeadPolicy narrow = {.window_share = 0.01};  // still the query's own key
  EXPECT_NEAR(ChooseHeadPolicy({&narrow, 1}, input).recovered, 0.5, 1e-6);
}

TEST(HeadPortfolioTest, SinksBeyondThePromptAreNoRows) {
  const std::vector<float> attention = {0.5f, 0.5f};
  const std::vector<TokenClass> classes(2, kOther);
  const Rows positions = Positions(2);
  PortfolioInput input;
  input.rows = {.positions = positions, .classes = classes};
  input.attention = attention;
  input.queries = 1;
  const PortfolioChoice choice = ChooseHeadPolicy(FastGenPortfolio(), input);  // 4 sinks
  EXPECT_EQ(choice.policy, 0);
  EXPECT_EQ(choice.kept, (Rows{0, 1}));
}

TEST(HeadPortfolioTest, SharesAreOfTheTokensSeenAlsoWhereRowsHaveGone) {
  // Ten tokens have been seen; rows 2, 3 and 6 to 9 are left. Two queries, at 8 and 9.
  const Rows positions = {2, 3, 6, 7, 8, 9};
  const std::vector<TokenClass> classes(6, kOther);
  const std::vector<float> attention = {0, 0, 0.5f, 0, 0.5f, 0,  //
                                        0, 0, 0,    0, 0,    1};
  PortfolioInput input;
  input.rows = {.positions = positions, .classes = classes, .sinks = 0};
  input.attention = attention;
  input.queries = 2;
  const HeadPolicy window = {.window_share = 0.3};  // positions 6 to 8, and 7 to 9
  const PortfolioChoice choice = ChooseHeadPolicy({&window, 1}, input);
  EXPECT_NEAR(choice.recovered, 1.0, 1e-6);
  EXPECT_EQ(choice.kept, (Rows{3, 4, 5}));
}

TEST(HeadPortfolioTest, WhereThereIsNoRoomSpecialTokensStayLongestAndTheOtherPartsShrinkInProportion) {
  const Rows positions = Positions(10);
  const std::vector<float> sums = {0, 1, 4, 0, 2, 1, 2, 3, 0, 0};
  const PortfolioRows rows = {.positions = positions, .classes = kClasses, .attention_sum = sums, .sinks = 1};
  const float gone = -std::numeric_limits<float>::infinity();
  const std::vector<HeadPolicy> portfolio = FastGenPortfolio(0.2, 0.2);
  // Heavy hitters 2 and 4 (of two equals the older), marks 5 and 7, the window 8 and 9.
  EXPECT_EQ(PolicyScores(portfolio[3], rows), (std::vector<float>{4, gone, 1, 3, 0.5f, 0.25f, gone, 0.75f, 0.5f, 1}));
  EXPECT_EQ(PolicyScores(portfolio[0], rows),
            (std::vector<float>{4, gone, gone, 3, gone, gone, gone, gone, gone, gone}));
  // Before the window 2, 7, 4, 6, 1, 5 in that order.
  const std::vector<float> full = PolicyScores(portfolio[4], rows), sixths = {24, 2, 6, 18, 4, 1, 3, 5, 3, 6};
  for (int i = 0; i < 10; ++i) EXPECT_NEAR(full[i], sixths[i] / 6, 1e-6) << i;
}

TEST(HeadPortfolioTest, WhatIsNoNumberLeavesFirst) {
  const Rows positions = Positions(4);
  const std::vector<TokenClass> classes(4, kOther);
  const std::vector<float> sums = {0.5f, std::numeric_limits<float>::quiet_NaN(), 0, 1};
  const PortfolioRows rows = {.positions = positions, .classes = classes, .attention_sum = sums, .sinks = 0};
  const HeadPolicy full = {.full = true};
  EXPECT_EQ(PolicyScores(full, rows), (std::vector<float>{0.75f, 0.25f, 0.5f, 1}));
}

// cold-compress's way: a mask of [queries][keys] for each policy.
TEST(HeadPortfolioTest, EqualsFullMasksOnRandomHeads) {
  std::mt19937 random(3);
  std::vector<int> chosen(5, 0);
  for (int round = 0; round < 300; ++round) {
    const int keys = 5 + round % 20, queries = 1 + round % 5, group = 1 + round % 2, sinks = round % 4;
    std::gamma_distribution<float> weight(0.05f + 0.1f * static_cast<float>(round % 7));
    std::vector<TokenClass> classes;
    for (int i = 0; i < keys; ++i)
      classes.push_back(static_cast<TokenClass>(std::max(0, static_cast<int>(random() % 6) - 3)));
    std::vector<float> attention;
    for (int row = 0; row < group * queries; ++row) {
      const int own = keys - queries + row % queries;
      std::vector<float> a(keys, 0.0f);
      float sum = 0;
      for (int i = 0; i <= own; ++i) sum += a[i] = weight(random) + 1e-6f;
      for (float& x : a) x /= sum;
      attention.insert(attention.end(), a.begin(), a.end());
    }
    const Rows positions = Positions(keys);
    PortfolioInput input;
    input.rows = {.positions = positions, .classes = classes, .sinks = sinks};
    input.attention = attention;
    input.queries = queries;
    input.least_recovered = 0.8;
    const std::vector<HeadPolicy> portfolio = FastGenPortfolio();
    const PortfolioChoice choice = ChooseHeadPolicy(portfolio, input);
    ++chosen[choice.policy];
    for (int p = 0; p <= choice.policy; ++p) {
      std::vector<std::vector<bool>> mask(queries, std::vector<bool>(keys, portfolio[p].full));
      for (int q = 0; q < queries; ++q) {
        const int own = keys - queries + q, window = std::max(1, static_cast<int>(portfolio[p].window_share * keys));
        for (int i = 0; i < keys; ++i) {
          if (i < sinks || (portfolio[p].special && classes[i] == kSpecial) ||
              (portfolio[p].punctuation && classes[i] == kPunctuation) ||
              (portfolio[p].window_share > 0 && i <= own && i > own - window)) {
            mask[q][i] = true;
          }
        }
      }
      const std::vector<bool> last = mask[queries - 1];
      std::vector<bool> taken = last;
      for (int heavy = 0; heavy < static_cast<int>(std::ceil(portfolio[p].heavy_share * keys)); ++heavy) {
        int best = -1;
        double best_sum = -1;
        for (int i = 0; i < keys; ++i) {
          double sum = 0;
          for (size_t row = 0; row < attention.size(); row += keys) sum += attention[row + i];
          if (!taken[i] && sum > best_sum) best = i, best_sum = sum;
        }
        if (best < 0) break;
        taken[best] = true;
        for (std::vector<bool>& row : mask) row[best] = true;
      }
      double recovered = 0;
      for (int row = 0; row < group * queries; ++row) {
        for (int i = 0; i < keys; ++i) {
          if (mask[row % queries][i]) recovered += attention[row * keys + i];
        }
      }
      recovered /= group * queries;
      if (p < choice.policy) {
        EXPECT_LT(recovered, 0.8);
        continue;
      }
      EXPECT_NEAR(choice.recovered, recovered, 1e-9);
      EXPECT_TRUE(recovered >= 0.8 || p == 4);
      Rows kept;
      for (int i = 0; i < keys; ++i) {
        if (mask[queries - 1][i]) kept.push_back(i);
      }
      EXPECT_EQ(choice.kept, kept);
    }
  }
  for (int count : chosen) EXPECT_GT(count, 0);
}

}  // namespace
}  // namespace tidepool
