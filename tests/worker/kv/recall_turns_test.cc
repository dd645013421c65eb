// When heads choose, beside their queries: turns that are owed, and steps in which few do.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "tests/support/blocks.h"
#include "worker/kv/row_recall.h"

namespace tidepool {
namespace {

RecallSpec Async() {
  RecallSpec spec;
  spec.mode = RecallMode::kAsync;
  return spec;
}

// A head with a block of rows, whose queries do not turn.
struct SteadyHead {
  SteadyHead() {
    const std::vector<char> rows(kBlockTokens * layout.row_bytes(), 1);
    recall.AddBlock(0, 1, 0, rows.data(), /*prompt=*/true);
  }
  const KvLayout layout = test::SmallLayout();
  RowRecall recall{layout, /*group=*/1, Async()};
  const std::vector<float> query = std::vector<float>(layout.head_dim, 1.0f);
  const std::vector<const float*> queries = {query.data()};
};

TEST(RecallTurnsTest, AHeadWithoutATurnIsDueInTheNextStepAndGoesFirst) {
  SteadyHead head;
  RowRecall& recall = head.recall;
  EXPECT_TRUE(recall.Due(1, 0, head.queries)) << "nothing has chosen yet";
  EXPECT_FALSE(recall.Due(1, 0, head.queries));
  EXPECT_EQ(recall.owed_heads(), 0);
  recall.Owe(1, 0);
  EXPECT_EQ(recall.owed_heads(), 1);
  EXPECT_TRUE(recall.Due(1, 0, head.queries)) << "though its queries have not turned";
  EXPECT_TRUE(recall.TakeOwed(1, 0));
  EXPECT_FALSE(recall.TakeOwed(1, 0)) << "one turn";
  EXPECT_EQ(recall.owed_heads(), 0);
  recall.Owe(1, 0);
  recall.Rest();
  EXPECT_EQ(recall.owed_heads(), 0) << "the next turn's prompt is recalled for anew";
}

// The keys are 1 and -1 by turns, so that the change of q.k / sqrt(d) has a standard deviation of |change of q| /
// sqrt(d).
TEST(RecallTurnsTest, WithMoreSlotsAHeadTurnsLater) {
  KvLayout layout = test::SmallLayout();
  layout.type = KvType::kF32;
  constexpr int kBlocks = 10, kTokens = kBlocks * kBlockTokens;
  RecallSpec spec = Async();
  spec.interval = 64;
  auto turns_after = [&](int32_t slots) {
    RowRecall recall(layout, /*group=*/1, spec);
    const auto row_floats = static_cast<int>(layout.row_bytes() / sizeof(float));
    std::vector<float> rows(static_cast<size_t>(kBlockTokens) * row_floats);
    for (int t = 0; t < kBlockTokens; ++t) std::fill_n(rows.begin() + t * row_floats, row_floats, t % 2 == 0 ? 1 : -1);
    for (int block = 0; block < kBlocks; ++block) {
      recall.AddBlock(block, 0, 0, reinterpret_cast<const char*>(rows.data()), /*prompt=*/true);
    }
    recall.set_slots(slots);
    std::vector<float> query(layout.head_dim, 0.0f);
    EXPECT_TRUE(recall.Due(0, 0, {query.data()})) << "nothing has chosen yet";
    double nats = 0;
    do {
      nats += 0.25;
      std::fill(query.begin(), query.end(), static_cast<float>(nats));
    } while (!recall.Due(0, 0, {query.data()}) && nats < 10);
    return nats;
  };
  EXPECT_EQ(spec.turn, 2);
  EXPECT_EQ(turns_after(kTokens / 40), 2);
  EXPECT_EQ(turns_after(kTokens / 21), 2);
  EXPECT_EQ(turns_after(kTokens * 7 / 100), 2.5) << "of 2.4";
  EXPECT_EQ(turns_after(kTokens / 10), 3);
  EXPECT_EQ(turns_after(kTokens / 2), 3);
}

TEST(RecallTurnsTest, WithMoreSlotsAChoiceIsToBringMore) {
  RecallSpec spec = Async();
  spec.index = RecallIndex::kPq16x4;
  RowRecall recall(test::SmallLayout(), /*group=*/1, spec);
  for (int i = 0; i < 8; ++i) recall.BeginStep(/*prompt=*/false, /*selects=*/false);
  ASSERT_FALSE(recall.begins_answer());
  RowScores scores;
  scores.mass = 0.5f;
  scores.positions = 1000;
  auto is_made = [&](float worth) {
    scores.worth = worth;
    return recall.WorthChoosing(scores);
  };
  recall.set_slots(50);
  EXPECT_FALSE(is_made(0.009f));
  EXPECT_TRUE(is_made(0.011f));
  recall.set_slots(75);
  EXPECT_FALSE(is_made(0.014f));
  EXPECT_TRUE(is_made(0.016f));
  recall.set_slots(400);
  EXPECT_FALSE(is_made(0.019f));
  EXPECT_TRUE(is_made(0.021f));
}

TEST(RecallTurnsTest, HeadsRestWhereThePolicySelectsButNotInEveryStep) {
  RowRecall recall(test::SmallLayout(), /*group=*/1, Async());
  recall.BeginStep(/*prompt=*/true, /*selects=*/false);
  recall.BeginStep(/*prompt=*/false, /*selects=*/false);
  EXPECT_FALSE(recall.rests());
  std::vector<bool> rests;
  for (int step = 0; step < 4; ++step) {
    recall.BeginStep(/*prompt=*/false, /*selects=*/true);
    rests.push_back(recall.rests());
  }
  EXPECT_EQ(rests, (std::vector<bool>{true, false, true, false}));
}

TEST(RecallTurnsTest, EveryHeadIsDueWhenAnAnswerBegins) {
  SteadyHead head;
  RowRecall& recall = head.recall;
  for (int answer = 0; answer < 2; ++answer) {
    recall.BeginStep(/*prompt=*/true, /*selects=*/false);
    EXPECT_FALSE(recall.begins_answer());
    recall.Due(1, 0, head.queries);
    std::vector<bool> due;
    for (int step = 0; step < 6; ++step) {
      recall.BeginStep(/*prompt=*/false, /*selects=*/false);
      due.push_back(recall.Due(1, 0, head.queries));
      EXPECT_EQ(recall.begins_answer(), due.back());
    }
    EXPECT_EQ(due, (std::vector<bool>{true, true, true, true, false, false}));
  }
}

}  // namespace
}  // namespace tidepool
