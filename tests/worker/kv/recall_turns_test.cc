// When heads choose, beside their queries: turns that are owed, and steps in which few do.
#include <gtest/gtest.h>

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
