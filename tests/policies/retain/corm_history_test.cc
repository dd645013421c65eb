#include "policies/retain/corm_history.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "gtest/gtest.h"
#include "policies/retain/select.h"

namespace tidepool {
namespace {

using Rows = std::vector<int32_t>;

// As the engine does: what matters stays, the last `recent` too, at most `most` in all.
Selection Select(const CormHistory& history, int recent, int most) {
  const int last = std::min(recent, history.rows()), past = history.rows() - last;
  const std::vector<float> scores = history.Scores(past);
  const auto matter = std::count_if(scores.begin(), scores.end(), [](float score) { return std::isfinite(score); });
  return SelectRows(history.rows(), scores,
                    {.heavy = std::min(most - recent, static_cast<int>(matter)), .recent = last});
}

TEST(CormHistoryTest, RowsThatAnyOfTheLastQueriesGaveItsEvenShareStay) {
  CormHistory history(2);
  history.Observe({0.7f, 0.1f, 0.1f, 0.1f}, 4);
  history.Observe({0.1f, 0.1f, 0.6f, 0.1f, 0.1f}, 5);
  EXPECT_EQ(history.rows(), 5);
  EXPECT_EQ(Select(history, 1, 5).kept, (Rows{0, 2, 4}));
  EXPECT_EQ(Select(history, 1, 5).evicted, (Rows{1, 3}));
  history.Observe({0.0f, 0.5f, 0.0f, 0.0f, 0.0f, 0.5f}, 6);
  EXPECT_EQ(Select(history, 1, 6).kept, (Rows{1, 2, 5}));  // row 0 is two queries old
}

TEST(CormHistoryTest, ExactlyTheEvenShareIsEnough) {
  CormHistory history(1);
  history.Observe({0.25f, 0.25f, 0.25f, 0.25f}, 4);
  EXPECT_EQ(Select(history, 0, 4).kept, (Rows{0, 1, 2, 3}));
}

TEST(CormHistoryTest, ARowMattersWhenItMattersToOneHeadOfTheGroup) {
  CormHistory history(1);
  history.Observe({0.8f, 0.1f, 0.1f,  //
                   0.1f, 0.1f, 0.8f},
                  3);
  EXPECT_EQ(Select(history, 0, 3).kept, (Rows{0, 2}));
}

TEST(CormHistoryTest, AboveTheCapThoseStayThatMatteredLastThenTheLower) {
  CormHistory history(8);
  history.Observe({0.4f, 0.3f, 0.3f, 0.0f, 0.0f, 0.0f}, 6);  // 0, 1, 2
  history.Observe({0.0f, 0.5f, 0.0f, 0.5f, 0.0f, 0.0f}, 6);  // 1, 3
  EXPECT_EQ(Select(history, 1, 5).kept, (Rows{0, 1, 2, 3, 5}));
  EXPECT_EQ(Select(history, 1, 4).kept, (Rows{0, 1, 3, 5}));
  EXPECT_EQ(Select(history, 1, 2).kept, (Rows{1, 5}));
  EXPECT_EQ(Select(history, 1, 1).kept, (Rows{5}));
  EXPECT_EQ(Select(history, 0, 0).kept, Rows{});
  EXPECT_EQ(Select(history, 6, 6).kept, (Rows{0, 1, 2, 3, 4, 5}));
}

TEST(CormHistoryTest, EverythingStaysBeforeAnyQueryAndWhenTheRecentCoverIt) {
  CormHistory history(4);
  EXPECT_TRUE(Select(history, 2, 2).kept.empty());
  history.Observe({1.0f}, 1);
  EXPECT_EQ(Select(history, 5, 5).kept, (Rows{0}));
}

TEST(CormHistoryTest, NoNumberMattersToNothing) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CormHistory history(4);
  history.Observe({nan, nan, nan}, 3);
  EXPECT_EQ(Select(history, 1, 3).kept, (Rows{2}));
}

// The definition, over the whole history of every row.
TEST(CormHistoryTest, EqualsTheDefinitionOverARandomPromptAndItsSteps) {
  std::mt19937 random(11);
  std::gamma_distribution<float> weight(0.2f);
  constexpr int kPrompt = 24, kSteps = 12, kWindow = 5, kGroup = 2, kRecent = 3;
  CormHistory history(kWindow);
  std::vector<int> resident;                                    // positions
  std::vector<std::vector<int>> mattered_at(kPrompt + kSteps);  // queries, by position
  for (int query = 0; query < kPrompt + kSteps; ++query) {
    if (query < kPrompt) {
      for (int position = static_cast<int>(resident.size()); position < kPrompt; ++position) {
        resident.push_back(position);
      }
    } else {
      resident.push_back(query);
    }
    const int visible = query < kPrompt ? query + 1 : static_cast<int>(resident.size());
    std::vector<float> attention;
    for (int head = 0; head < kGroup; ++head) {
      std::vector<float> row;
      float sum = 0;
      for (int i = 0; i < visible; ++i) sum += row.emplace_back(weight(random) + 1e-4f);
      for (int i = 0; i < visible; ++i) {
        row[i] /= sum;
        if (row[i] >= 1.0f / static_cast<float>(visible)) mattered_at[resident[i]].push_back(query);
      }
      attention.insert(attention.end(), row.begin(), row.end());
    }
    history.Observe(attention, visible);
    if (query < kPrompt - 1) continue;
    ASSERT_EQ(history.rows(), static_cast<int>(resident.size()));
    Rows expected;
    for (size_t i = 0; i < resident.size(); ++i) {
      bool stays = i + kRecent >= resident.size();
      for (int at : mattered_at[resident[i]]) stays = stays || at > query - kWindow;
      if (stays) expected.push_back(static_cast<int32_t>(i));
    }
    const Rows kept = Select(history, kRecent, 1000).kept;
    ASSERT_EQ(kept, expected) << "query " << query;
    history.Keep(kept);
    std::vector<int> left;
    for (int32_t i : kept) left.push_back(resident[i]);
    resident = left;
  }
  EXPECT_LT(static_cast<int>(resident.size()), kPrompt);
}

}  // namespace
}  // namespace tidepool
