// Scorers against a head that is written down here.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "policies/retain/expected_attention.h"
#include "policies/retain/keyformer_scores.h"
#include "policies/retain/preset_table.h"
#include "policies/retain/score_method.h"

namespace tidepool {
namespace {

using testing::Each;
using testing::ElementsAre;
using testing::FloatNear;

// One query head of two channels. Row i is at position i, and query j has equal attention to what it sees, unless
// given.
class WrittenHead final : public HeadView {
 public:
  explicit WrittenHead(int rows) : rows_(rows), rope_{.frequencies = {0.5f}} {}

  int layer() const override { return 3; }
  int kv_head() const override { return 1; }
  int group() const override { return 1; }
  int head_dim() const override { return 2; }
  int rows() const override { return rows_; }
  int32_t position(int row) const override { return positions.empty() ? row : positions[row]; }
  TokenClass token_class(int row) const override { return classes.empty() ? TokenClass::kOther : classes[row]; }
  int budget() const override { return rows_; }
  using HeadView::Attention;
  AttentionRows Attention(int last, absl::FunctionRef<float(int32_t)>) const override {
    AttentionRows attention = {.queries = std::min(last, rows_), .keys = rows_, .probabilities = {}};
    for (int query = rows_ - attention.queries; query < rows_; ++query) {
      for (int row = 0; row < rows_; ++row) {
        const float share = newest.empty() || query != rows_ - 1 ? 1.0f / static_cast<float>(query + 1) : newest[row];
        attention.probabilities.push_back(row <= query ? share : 0.0f);
      }
    }
    return attention;
  }
  std::vector<float> ColumnSums(GroupReduce) const override { return column_sums; }
  std::vector<float> Keys(int first, int count) const override { return Part(keys, first, count); }
  std::vector<float> Values(int first, int count) const override { return Part(values, first, count); }
  HeadQueries Queries(int last) const override {
    HeadQueries result = {.count = std::min(last, rows_), .first_position = rows_ - std::min(last, rows_), .data = {}};
    for (int i = result.first_position; i < rows_; ++i) {
      result.data.push_back(static_cast<float>(std::cos(i)));
      result.data.push_back(static_cast<float>(std::sin(2 * i)));
    }
    return result;
  }
  const Rope& rope() const override { return rope_; }

  std::vector<float> newest, column_sums, keys, values;
  std::vector<TokenClass> classes;
  std::vector<int32_t> positions;

 private:
  std::vector<float> Part(const std::vector<float>& from, int first, int count) const {
    return {from.begin() + 2 * first, from.begin() + 2 * (first + count)};
  }

  const int rows_;
  const Rope rope_;
};

std::unique_ptr<HeadScorer> ScorerOf(const CompressionSpec& spec) { return FindScore(spec.score)->MakeScorer(spec); }

TEST(ScorersTest, ElasticKeepsByColumnSumsThenGivesUpTheRowAtItsDistance) {
  CompressionSpec spec = *PresetSpec("elastic");
  spec.score_options["distance"] = 3;
  const auto scorer = ScorerOf(spec);
  WrittenHead head(6);
  head.column_sums = {5, 1, 4, 2, 3, 0.5f};
  scorer->OnPrompt(head);
  EXPECT_EQ(scorer->Scores(head, 5), head.column_sums);
  scorer->OnStep(head);
  const std::vector<float> scores = scorer->Scores(head, 5);
  EXPECT_EQ(std::min_element(scores.begin(), scores.end()) - scores.begin(), 3);  // the third from the end
  scorer->OnPrompt(head);                                                         // another turn
  EXPECT_EQ(scorer->Scores(head, 5), head.column_sums);
}

TEST(ScorersTest, CormSendsAwayWhatHasNotMatteredAndStepsCount) {
  CompressionSpec spec = *PresetSpec("corm");
  spec.score_options["queries"] = 2;
  const auto scorer = ScorerOf(spec);
  WrittenHead prompt(4);
  prompt.newest = {0.4f, 0.1f, 0.1f, 0.4f};
  scorer->OnPrompt(prompt);  // its last two queries: rows 0 to 2 equally, then rows 0 and 3
  const float gone = -std::numeric_limits<float>::infinity();
  EXPECT_THAT(scorer->Scores(prompt, 4), ElementsAre(0, -1, -1, 0));
  WrittenHead step(5);
  step.newest = {0.1f, 0.1f, 0.1f, 0.6f, 0.1f};
  scorer->OnStep(step);
  EXPECT_THAT(scorer->Scores(step, 5), ElementsAre(-1, gone, gone, 0, gone));
  scorer->Keep({0, 3, 4});
  EXPECT_THAT(scorer->Scores(WrittenHead(3), 3), ElementsAre(-1, 0, gone));
}

TEST(ScorersTest, KeyformerHasSumsOfRowsWhoseStepsItDidNotFollow) {
  const CompressionSpec spec = *PresetSpec("keyformer");
  const auto scorer = ScorerOf(spec);
  scorer->OnPromptQueries(WrittenHead(5), 5, /*first=*/true);
  const std::vector<float> of_prompt = scorer->Scores(WrittenHead(5), 5);
  scorer->OnPrompt(WrittenHead(5));
  EXPECT_EQ(scorer->Scores(WrittenHead(5), 5), of_prompt) << "nothing is new";
  scorer->OnPrompt(WrittenHead(8));
  const std::vector<float> all = scorer->Scores(WrittenHead(8), 8);
  ASSERT_EQ(all.size(), 8u);
  EXPECT_GT(all[6], 0);
  scorer->Keep({0, 6, 7});
  EXPECT_THAT(scorer->Scores(WrittenHead(3), 3), ElementsAre(all[0], all[6], all[7]));
}

TEST(ScorersTest, KeyformerAddsUpTheDisturbedAttentionOfEveryQuery) {
  CompressionSpec spec = *PresetSpec("keyformer");
  spec.score_options["seed"] = 9;
  const auto scorer = ScorerOf(spec);
  // A prompt of five tokens in two parts, and a step.
  scorer->OnPromptQueries(WrittenHead(3), 3, /*first=*/true);
  scorer->OnPromptQueries(WrittenHead(5), 2, /*first=*/false);
  scorer->OnStep(WrittenHead(6));
  std::vector<double> expected(6, 0.0);
  const std::vector<int32_t> positions = {0, 1, 2, 3, 4, 5};
  for (int query = 0; query < 6; ++query) {
    const std::vector<float> logits(query + 1, 0.0f);  // equal attention
    const std::vector<float> row =
        KeyformerRow(logits, absl::MakeConstSpan(positions).first(query + 1), {.seed = 9, .layer = 3, .query_head = 1},
                     query, KeyformerTemperature(query < 5 ? 0 : 1));
    for (int i = 0; i <= query; ++i) expected[i] += row[i];
  }
  const std::vector<float> scores = scorer->Scores(WrittenHead(6), 6);
  for (int i = 0; i < 6; ++i) EXPECT_NEAR(scores[i], expected[i], 1e-5) << i;

  ByteWriter out;
  scorer->Save(out);
  const auto restored = ScorerOf(spec);
  const std::string bytes = std::move(out).Take();
  ByteReader in(bytes);
  restored->Load(in);
  EXPECT_TRUE(in.done());
  scorer->OnStep(WrittenHead(7));
  restored->OnStep(WrittenHead(7));
  EXPECT_EQ(restored->Scores(WrittenHead(7), 7), scorer->Scores(WrittenHead(7), 7));
}

TEST(ScorersTest, ExpectedAttentionIsThatOfAllQueriesOfThePromptButTheFirst) {
  CompressionSpec spec = *PresetSpec("expected-attention");
  spec.sink_tokens = 2;
  spec.score_options["positions"] = 7;
  const auto scorer = ScorerOf(spec);
  WrittenHead head(160);
  std::vector<float> norms;
  for (int i = 0; i < 160; ++i) {
    head.keys.insert(head.keys.end(), {static_cast<float>(std::sin(i)), static_cast<float>(i % 7) - 3});
    head.values.insert(head.values.end(), {3.0f * static_cast<float>(i), 4.0f * static_cast<float>(i)});
    if (i >= 2) norms.push_back(5.0f * static_cast<float>(i));
  }
  scorer->OnPromptQueries(WrittenHead(100), 100, /*first=*/true);
  scorer->OnPromptQueries(head, 60, /*first=*/false);
  scorer->OnPrompt(head);
  std::vector<float> queries = head.Queries(158).data;
  QueryDistribution distribution = DistributionOfQueries(queries, 2);
  Rotate(RotationAhead({0.5f}, 160, 7, false), distribution);
  const std::vector<float> keys = head.Keys(2, 158);
  const std::vector<float> expected = ExpectedAttention({distribution}, keys, norms);
  const std::vector<float> scores = scorer->Scores(head, 160);
  ASSERT_EQ(scores.size(), 160u);
  for (int i = 2; i < 160; ++i) EXPECT_NEAR(scores[i], expected[i - 2], 1e-4 * std::abs(expected[i - 2]) + 1e-9) << i;
}

TEST(ScorersTest, FastGenChoosesAtThePromptAndFollowsItsPolicyInSteps) {
  CompressionSpec spec = *PresetSpec("fastgen");
  spec.sink_tokens = 1;
  spec.score_options = {{"queries", 1}, {"recovered", 0.8}, {"heavy", 0.2}, {"window", 0.2}};
  const auto scorer = ScorerOf(spec);
  const float gone = -std::numeric_limits<float>::infinity();
  const TokenClass other = TokenClass::kOther, mark = TokenClass::kPunctuation;
  WrittenHead prompt(5);
  prompt.classes = {other, other, mark, other, other};
  prompt.newest = {0.2f, 0.1f, 0.3f, 0.4f, 0};
  scorer->OnPrompt(prompt);
  // Sink and mark hold 0.5; with the heavy hitter 3 (a fifth of five tokens is one) it is 0.9.
  EXPECT_THAT(scorer->Scores(prompt, 5), ElementsAre(4, gone, 0.5f, 1, gone));
  // Then what was row 4 gets more than what was row 3.
  scorer->Keep({0, 2, 3, 4});
  WrittenHead step(5);
  step.classes = {other, mark, other, other, mark};
  step.newest = {0.1f, 0, 0, 0.6f, 0.3f};
  scorer->OnStep(step);
  EXPECT_THAT(scorer->Scores(step, 5), ElementsAre(4, FloatNear(2 / 3.0f, 1e-6), gone, 1, FloatNear(1 / 3.0f, 1e-6)));
  // The next prompt chooses anew: everything, where nothing less recovers enough.
  spec.score_options["recovered"] = 1;
  const auto all = ScorerOf(spec);
  prompt.newest = {0.2f, 0.2f, 0.2f, 0.2f, 0.2f};
  all->OnPrompt(prompt);
  EXPECT_THAT(all->Scores(prompt, 5), testing::Not(testing::Contains(gone)));
}

TEST(ScorersTest, KvZipKeepsTheMostThatARowGetsWhileItsPieceIsRepeated) {
  CompressionSpec spec = *PresetSpec("kvzip");
  spec.sink_tokens = 1;
  spec.window_tokens = 1;
  const auto scorer = ScorerOf(spec);
  // Context 0 to 4 in two pieces, 1 to 2 and 3 to 4; a repetition of two tokens, in two steps, at 5 and 6.
  const RepeatedPiece one = {.first = 1, .last = 3, .repetition = 5}, two = {.first = 3, .last = 5, .repetition = 5};
  WrittenHead first(6), second(7);
  first.newest = {0.2f, 0.1f, 0.05f, 0.5f, 0.1f, 0.05f};  // compared: 0, 1, 2, 5, which hold 0.4
  second.newest = {0.2f, 0, 0.2f, 0.2f, 0, 0.2f, 0.2f};   // 0, 1, 2, 5, 6: 0.8
  scorer->OnRepetition(first, one, 1);
  scorer->OnRepetition(second, one, 1);
  scorer->OnRepetition(first, two, 1);   // 0, 3, 4, 5: 0.85
  scorer->OnRepetition(second, two, 1);  // 0, 3, 4, 5, 6: 0.8
  const auto near = [](double x) { return FloatNear(static_cast<float>(x), 1e-6f); };
  const std::vector<float> scores = scorer->Scores(WrittenHead(5), 5);
  EXPECT_THAT(scores, ElementsAre(1, near(0.1 / 0.4), near(0.2 / 0.8), near(0.5 / 0.85), near(0.1 / 0.85)));

  // A session goes on: row 2 has left, two rows are new and have what the last query gives them.
  ByteWriter out;
  scorer->Save(out);
  const std::string bytes = std::move(out).Take();
  ByteReader in(bytes);
  const auto restored = ScorerOf(spec);
  restored->Load(in);
  EXPECT_TRUE(in.done());
  WrittenHead later(6);
  later.positions = {0, 1, 3, 4, 5, 6};
  later.newest = {0.3f, 0.1f, 0.1f, 0.1f, 0.25f, 0.15f};
  EXPECT_THAT(restored->Scores(later, 6),
              ElementsAre(1, near(0.1 / 0.4), near(0.5 / 0.85), near(0.1 / 0.85), near(0.25), near(0.15)));
}

TEST(ScorersTest, UnrotateUndoesRope) {
  const Rope neighbours = {.frequencies = {1.0f, 0.1f}, .neox = false, .magnitude = 1.5f};
  for (const bool neox : {false, true}) {
    Rope rope = neighbours;
    rope.neox = neox;
    QueryDistribution query = {.mean = {0.3, -2, 5, 0.25, 7}, .covariance = std::vector<double>(25, 0.0)};
    const std::vector<double> before = query.mean;
    AverageRotation rotation = RotationAhead(rope.frequencies, 1000, 1, neox);
    for (double& x : rotation.cosine) x *= rope.magnitude;
    for (double& x : rotation.sine) x *= rope.magnitude;
    Rotate(rotation, query);
    std::vector<float> turned(query.mean.begin(), query.mean.end());
    Unrotate(rope, 1000, absl::MakeSpan(turned));
    for (size_t i = 0; i < 5; ++i) EXPECT_NEAR(turned[i], before[i], 1e-5) << neox << " " << i;
  }
}

}  // namespace
}  // namespace tidepool
