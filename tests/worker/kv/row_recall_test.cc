#include "worker/kv/row_recall.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "policies/recall/cosine_probe.h"

namespace tidepool {
namespace {

using testing::ElementsAre;

KvLayout Layout() {
  KvLayout layout;
  layout.model_fingerprint = "test";
  layout.layers = 1;
  layout.kv_heads = 1;
  layout.head_dim = 32;
  layout.type = KvType::kF32;
  return layout;
}

// 200 random keys of one head: three full blocks and a tail, all evicted but the last 20.
class RowRecallTest : public testing::Test {
 protected:
  static constexpr int kTokens = 200, kResident = 20, kGroup = 2;

  RowRecallTest() : pool_(64, 1024), rows_(&pool_, 1, 1), keys_(kTokens * 32) {
    std::mt19937 random(3);
    std::normal_distribution<float> normal(0, 1);
    for (float& x : keys_) x = normal(random);
    for (int g = 0; g < kGroup; ++g) {
      for (int c = 0; c < 32; ++c) query_.push_back(2 * normal(random));
    }
    queries_ = {query_.data(), query_.data() + 32};
    for (int position = kTokens - kResident; position < kTokens; ++position) {
      rows_.head(0, 0).Add(pool_, position, RowKind::kKept);
    }
  }

  static RecallSpec Spec(RecallMode mode, RecallIndex index = RecallIndex::kK4, int shortlist = -1) {
    RecallSpec spec;
    spec.mode = mode;
    spec.index = index;
    spec.shortlist = shortlist;
    return spec;
  }
  // Both halves of a choice; the rows of a shortlist are had, unless `local` is false.
  RowChoice Choose(RowRecall& recall, const BlockLog& log, bool exact, bool local = true) {
    RowScores scores;
    recall.Score(rows_, log, 0, 0, queries_, kTokens, /*waits=*/exact, scores);
    compared_ = 0;
    std::vector<float> row(64);
    for (int32_t position : scores.shortlist) {
      ++compared_;
      std::copy_n(keys_.data() + position * 32, 32, row.data());
      if (local) {
        recall.Compare(queries_, {scores.PlaceOf(position)}, {reinterpret_cast<const char*>(row.data())}, scores);
      }
    }
    return recall.Choose(0, 0, scores, exact);
  }
  std::unique_ptr<BlockLog> MakeLog(RowRecall& recall) {
    auto log = std::make_unique<BlockLog>(Layout(), BlockLogOptions(), nullptr);
    log->set_on_full(
        [&](int32_t block, int layer, int head, const char* rows) { recall.AddBlock(block, layer, head, rows, true); });
    for (int first = 0; first < kTokens;) {
      const int count = std::min(log->room_in_tail(), kTokens - first);
      log->Append(std::vector<int32_t>(count, 1), true, [&](int, int, char* out) {
        for (int i = 0; i < count; ++i) {
          std::memcpy(out + i * Layout().row_bytes(), keys_.data() + (first + i) * 32, 32 * sizeof(float));
          std::memset(out + i * Layout().row_bytes() + 128, 0, 128);
        }
      });
      first += count;
    }
    return log;
  }
  // Exact weights of the evicted rows: softmax per query head, then the mean.
  std::vector<double> ExactWeights() {
    const int count = kTokens - kResident;
    std::vector<double> weight(count, 0.0);
    for (int g = 0; g < kGroup; ++g) {
      std::vector<double> e(count);
      double sum = 0;
      for (int t = 0; t < count; ++t) {
        double dot = 0;
        for (int c = 0; c < 32; ++c) dot += double{queries_[g][c]} * keys_[t * 32 + c];
        sum += e[t] = std::exp(dot / std::sqrt(32.0));
      }
      for (int t = 0; t < count; ++t) weight[t] += e[t] / sum / kGroup;
    }
    return weight;
  }
  void Install(const RowChoice& choice, int slots) {
    HeadRows& head = rows_.head(0, 0);
    size_t victim = 0;
    for (int32_t position : choice.wanted) {
      if (head.recalled_rows() >= slots) {
        ASSERT_LT(victim, choice.victims.size());
        head.Remove(head.Find(choice.victims[victim++]));
      }
      head.Add(pool_, position, RowKind::kRecalled);
    }
  }

  PagePool pool_;
  SequenceRows rows_;
  std::vector<float> keys_, query_;
  std::vector<const float*> queries_;
  int compared_ = 0;
};

TEST_F(RowRecallTest, SyncBringsTheBestRowsByFourBitKeys) {
  constexpr int kSlots = 16;
  RowRecall recall(Layout(), kGroup, Spec(RecallMode::kSync));
  recall.set_slots(kSlots);
  const auto log = MakeLog(recall);
  EXPECT_EQ(recall.index_bytes(), 3 * (64 * 16 + 2 * 32 * 4)) << "3 blocks: half a byte per channel and two ranges";
  const RowChoice choice = Choose(recall, *log, true);
  ASSERT_EQ(choice.wanted.size(), static_cast<size_t>(kSlots));
  EXPECT_TRUE(choice.victims.empty());
  const std::vector<double> exact = ExactWeights();
  std::vector<double> sorted = exact;
  std::sort(sorted.rbegin(), sorted.rend());
  double mass = 0, best = 0;
  for (int32_t position : choice.wanted) {
    ASSERT_LT(position, kTokens - kResident) << "resident rows are not asked for";
    mass += exact[position];
  }
  for (int i = 0; i < kSlots; ++i) best += sorted[i];
  EXPECT_GT(mass, 0.95 * best);
  EXPECT_EQ(std::max_element(exact.begin(), exact.end()) - exact.begin(), choice.wanted[0]);
}

TEST_F(RowRecallTest, SyncAsksForNothingWhenTheBestAreThere) {
  RowRecall recall(Layout(), kGroup, Spec(RecallMode::kSync));
  recall.set_slots(16);
  const auto log = MakeLog(recall);
  Install(Choose(recall, *log, true), 16);
  const RowChoice again = Choose(recall, *log, true);
  EXPECT_TRUE(again.wanted.empty());
  EXPECT_TRUE(again.victims.empty());
}

TEST_F(RowRecallTest, OtherQueriesTakeTheSlotsOfRowsThatAreNotWantedAnyMore) {
  RowRecall recall(Layout(), kGroup, Spec(RecallMode::kSync));
  recall.set_slots(16);
  const auto log = MakeLog(recall);
  Install(Choose(recall, *log, true), 16);
  for (float& x : query_) x = -x;
  const RowChoice choice = Choose(recall, *log, true);
  EXPECT_GT(choice.wanted.size(), 8u);
  EXPECT_GE(choice.victims.size(), choice.wanted.size());
  Install(choice, 16);
  EXPECT_EQ(rows_.head(0, 0).recalled_rows(), 16);
}

TEST_F(RowRecallTest, AsyncSettlesWhenTheQueriesDoNotChange) {
  RowRecall recall(Layout(), kGroup, Spec(RecallMode::kAsync));
  recall.set_slots(16);
  const auto log = MakeLog(recall);
  size_t asked = 0;
  for (int step = 0; step < 6; ++step) {
    const RowChoice choice = Choose(recall, *log, false);
    EXPECT_LE(choice.wanted.size(), 8u) << "half of the slots in one step at most";
    asked = choice.wanted.size();
    Install(choice, 16);
  }
  EXPECT_EQ(asked, 0u);
  for (float& x : query_) x = -x;
  EXPECT_GT(Choose(recall, *log, false).wanted.size(), 4u) << "a change is answered in one step";
}

TEST_F(RowRecallTest, AMixtureIsWantedBackAndLostBlocksAreNot) {
  RowRecall recall(Layout(), kGroup, Spec(RecallMode::kSync));
  recall.set_slots(16);
  const auto log = MakeLog(recall);
  const RowChoice before = Choose(recall, *log, true);
  const int32_t best = before.wanted[0];
  HeadRows& head = rows_.head(0, 0);
  const int32_t slot = head.Add(pool_, best, RowKind::kKept);
  EXPECT_EQ(std::count(before.wanted.begin(), before.wanted.end(), best), 1);
  RowChoice choice = Choose(recall, *log, true);
  EXPECT_EQ(std::count(choice.wanted.begin(), choice.wanted.end(), best), 0) << "kept as it was";
  head.merged()[slot] = 1;
  choice = Choose(recall, *log, true);
  EXPECT_EQ(choice.wanted[0], best) << "kept as a mixture only";
  log->MarkLost(best / kBlockTokens, 0);
  choice = Choose(recall, *log, true);
  for (int32_t position : choice.wanted) EXPECT_NE(position / kBlockTokens, best / kBlockTokens);
}

TEST_F(RowRecallTest, KeysOfTheShortlistDecideWhenTheIndexIsCoarse) {
  constexpr int kSlots = 16;
  const std::vector<double> exact = ExactWeights();
  auto mass_of = [&](int shortlist, bool local) {
    RowRecall recall(Layout(), kGroup, Spec(RecallMode::kSync, RecallIndex::kPage16, shortlist));
    recall.set_slots(kSlots);
    const auto log = MakeLog(recall);
    double mass = 0;
    for (int32_t position : Choose(recall, *log, true, local).wanted) mass += exact[position];
    return mass;
  };
  std::vector<double> sorted = exact;
  std::sort(sorted.rbegin(), sorted.rend());
  double best = 0;
  for (int i = 0; i < kSlots; ++i) best += sorted[i];
  const double alone = mass_of(0, true), compared = mass_of(kTokens, true), missing = mass_of(kTokens, false);
  EXPECT_LT(alone, 0.9 * best);
  EXPECT_NEAR(compared, best, 1e-4);
  EXPECT_NEAR(missing, alone, 1e-6) << "what cannot be had keeps its estimate";
}

TEST_F(RowRecallTest, TheShortlistHasTheSlotsAndSoManyMore) {
  RowRecall recall(Layout(), kGroup, Spec(RecallMode::kSync, RecallIndex::kPage16, 20));
  recall.set_slots(16);
  const auto log = MakeLog(recall);
  Choose(recall, *log, true);
  EXPECT_EQ(compared_, 36);
  EXPECT_EQ(recall.staging().capacity(), 36);
}

TEST_F(RowRecallTest, AStepThatDoesNotWaitComparesAsManyRows) {
  for (const auto& [shortlist, compared] : {std::pair{-1, kTokens - kResident}, {20, 36}, {0, 0}}) {
    RecallSpec spec = Spec(RecallMode::kAsync, RecallIndex::kPq16x4, shortlist);
    spec.min_share = 0;
    RowRecall recall(Layout(), kGroup, spec);
    recall.set_slots(16);
    const auto log = MakeLog(recall);
    for (const bool exact : {false, true}) {
      Choose(recall, *log, exact);
      EXPECT_EQ(compared_, compared);
    }
  }
}

// As many as before would be compared to no end: they weigh too little to be wanted, whatever their keys say.
TEST_F(RowRecallTest, AStepThatDoesNotWaitComparesNoRowsFarBelowWhatIsWanted) {
  RecallSpec spec = Spec(RecallMode::kAsync, RecallIndex::kExact, 100);
  size_t before = 117;
  for (const double min_share : {0.0, 0.02, 0.05}) {
    spec.min_share = min_share;
    RowRecall recall(Layout(), kGroup, spec);
    recall.set_slots(16);
    const auto log = MakeLog(recall);
    RowScores scores;
    recall.Score(rows_, *log, 0, 0, queries_, kTokens, /*waits=*/false, scores);
    std::vector<int32_t> expected;
    const std::vector<double> exact = ExactWeights();
    for (int t = 0; t < kTokens - kResident; ++t) {
      if (exact[t] * scores.mass > 0.1 * min_share) expected.push_back(t);
    }
    if (min_share > 0) {
      EXPECT_EQ(scores.shortlist, expected) << min_share;
    }
    EXPECT_LT(scores.shortlist.size(), before);
    EXPECT_FALSE(scores.shortlist.empty());
    before = scores.shortlist.size();
    const RowChoice choice = recall.Choose(0, 0, scores, /*exact=*/false);
    for (int32_t position : choice.wanted) EXPECT_GT(exact[position] * scores.mass, 0.99 * min_share);
  }
}

// An index that errs may leave the row that a question asks for next to nothing.
TEST_F(RowRecallTest, AsAnAnswerBeginsAsManyRowsAreComparedWhateverTheyWeigh) {
  RecallSpec spec = Spec(RecallMode::kAsync, RecallIndex::kExact, 40);
  spec.min_share = 0.05;
  RowRecall recall(Layout(), kGroup, spec);
  recall.set_slots(16);
  const auto log = MakeLog(recall);
  RowScores scores;
  for (int step = 1; step <= 6; ++step) {
    recall.BeginStep(/*prompt=*/false, /*selects=*/false);
    recall.Score(rows_, *log, 0, 0, queries_, kTokens, /*waits=*/false, scores);
    if (step <= 4) {
      EXPECT_EQ(scores.shortlist.size(), 56u) << step;
    } else {
      EXPECT_LT(scores.shortlist.size(), 56u) << step;
    }
  }
}

TEST_F(RowRecallTest, AStepThatDoesNotWaitMakesNoChoiceThatCouldBringNextToNothing) {
  constexpr int kSlots = 16;
  RowRecall recall(Layout(), kGroup, Spec(RecallMode::kAsync, RecallIndex::kExact, 100));
  recall.set_slots(kSlots);
  const auto log = MakeLog(recall);
  RowScores scores;
  auto score = [&](bool waits) { recall.Score(rows_, *log, 0, 0, queries_, kTokens, waits, scores); };
  auto expect_sums = [&] {
    const std::vector<double> exact = ExactWeights();
    const HeadRows& head = rows_.head(0, 0);
    double held = 0, others = 0;
    for (int t = 0; t < kTokens - kResident; ++t) (head.Find(t) >= 0 ? held : others) += exact[t];
    EXPECT_NEAR(scores.held, held, 1e-3);
    EXPECT_LE(scores.worth, scores.mass * others + 1e-3) << "only what would be wanted";
  };
  score(false);
  EXPECT_EQ(scores.held, 0);
  EXPECT_TRUE(recall.WorthChoosing(scores));
  expect_sums();
  for (int step = 0; step < 6; ++step) Install(Choose(recall, *log, false), kSlots);
  for (int step = 0; step < 4; ++step) {
    recall.BeginStep(/*prompt=*/false, /*selects=*/false);
    score(false);
    EXPECT_TRUE(recall.WorthChoosing(scores)) << "all choices are made as an answer begins";
  }
  recall.BeginStep(/*prompt=*/false, /*selects=*/false);
  score(false);
  EXPECT_FALSE(recall.WorthChoosing(scores)) << "the best are there: " << scores.worth;
  EXPECT_TRUE(scores.shortlist.empty());
  expect_sums();
  for (float& x : query_) x = -x;
  score(false);
  EXPECT_TRUE(recall.WorthChoosing(scores)) << scores.worth;
  EXPECT_FALSE(scores.shortlist.empty());
  expect_sums();
}

TEST_F(RowRecallTest, RowsOfTheShortlistAreFetchedAhead) {
  RowRecall recall(Layout(), kGroup, Spec(RecallMode::kAsync, RecallIndex::kPq16x4, 60));
  recall.set_slots(4);
  const auto log = MakeLog(recall);
  RowScores scores;
  recall.Score(rows_, *log, 0, 0, queries_, kTokens, /*waits=*/false, scores);
  for (float& share : scores.share) share = 0;  // nothing is wanted, nor followed
  for (int32_t place : scores.shortlist_place) scores.share[place] = 1e-6f;
  const RowChoice choice = recall.Choose(0, 0, scores, /*exact=*/false);
  EXPECT_EQ(choice.ahead.size(), 16u) << "no more at once";
  for (int32_t position : choice.ahead) {
    EXPECT_EQ(std::count(scores.shortlist.begin(), scores.shortlist.end(), position), 1) << position;
  }
}

TEST_F(RowRecallTest, AnAnswerIsEarlyForSomeSteps) {
  RowRecall recall(Layout(), kGroup, Spec(RecallMode::kAsync, RecallIndex::kPq16x4, 60));
  for (int answer = 0; answer < 2; ++answer) {
    recall.BeginStep(/*prompt=*/true, /*selects=*/false);
    EXPECT_FALSE(recall.is_early());
    for (int step = 1; step <= 33; ++step) {
      recall.BeginStep(/*prompt=*/false, /*selects=*/false);
      EXPECT_EQ(recall.is_early(), step <= 32) << step;
    }
  }
}

TEST_F(RowRecallTest, RowsThatAreNotThereAreCorrectedByTheMeanErrorOfOthers) {
  RowRecall recall(Layout(), kGroup, Spec(RecallMode::kAsync, RecallIndex::kK4, 20));
  recall.set_slots(16);
  const auto log = MakeLog(recall);
  RowScores scores;
  recall.Score(rows_, *log, 0, 0, queries_, kTokens, /*waits=*/false, scores);
  ASSERT_EQ(scores.shortlist.size(), 36u);
  const std::vector<float> before = scores.share;
  const int32_t far = scores.shortlist_place[9], other = scores.shortlist_place[8];
  scores.CompareByOthers({far});
  EXPECT_TRUE(std::equal(scores.exact.begin(), scores.exact.end(), scores.estimate.begin())) << "nothing was compared";
  double sum = 0;
  for (int i = 0; i < 2; ++i) {
    const int32_t position = scores.shortlist[i], place = scores.shortlist_place[i];
    scores.estimate[place] += static_cast<float>(i + 1);  // too high for the first query
    double dot = 0;
    for (int c = 0; c < 32; ++c) dot += double{query_[c]} * keys_[position * 32 + c];
    sum += (dot - scores.estimate[place]) / std::sqrt(32.0);
    std::vector<float> row(64);
    std::copy_n(keys_.data() + position * 32, 32, row.data());
    recall.Compare(queries_, {place}, {reinterpret_cast<const char*>(row.data())}, scores);
  }
  scores.CompareByOthers({far});
  scores.Correct();
  EXPECT_NEAR(scores.share[far], before[far] * std::exp(sum / 2), 1e-4 * before[far]);
  EXPECT_EQ(scores.share[other], before[other]);
}

// The keys are standard normal: the change of q.k / sqrt(d) has a standard deviation of |change of q| / sqrt(32).
TEST_F(RowRecallTest, AHeadChoosesAnewWhenItsQueriesTurnAndAfterSomeSteps) {
  RecallSpec spec = Spec(RecallMode::kAsync);
  spec.interval = 4;
  spec.turn = 0.5;
  RowRecall recall(Layout(), kGroup, spec);
  const auto log = MakeLog(recall);
  EXPECT_TRUE(recall.Due(0, 0, queries_)) << "nothing has chosen yet";
  for (int round = 0; round < 2; ++round) {
    for (int step = 1; step < 4; ++step) EXPECT_FALSE(recall.Due(0, 0, queries_)) << step;
    EXPECT_TRUE(recall.Due(0, 0, queries_));
  }
  auto turn = [&](float nats) {
    for (int c = 32; c < 64; ++c) query_[c] += nats * (c % 2 == 0 ? 1 : -1);  // of one of the two
  };
  turn(0.4f);
  EXPECT_FALSE(recall.Due(0, 0, queries_));
  turn(0.2f);
  EXPECT_TRUE(recall.Due(0, 0, queries_)) << "0.6 since it chose last";
  turn(0.4f);
  EXPECT_FALSE(recall.Due(0, 0, queries_)) << "0.4 since it chose last";
  query_[0] = std::nanf("");
  EXPECT_TRUE(recall.Due(0, 0, queries_)) << "no number";
}

TEST_F(RowRecallTest, WantedRowsThatComeLaterAreForTheSlotsOfTheirVictims) {
  RowRecall recall(Layout(), kGroup, Spec(RecallMode::kAsync));
  recall.set_slots(4);
  const auto log = MakeLog(recall);
  RowChoice come;
  EXPECT_TRUE(recall.Due(0, 0, queries_));
  EXPECT_FALSE(recall.TakeExpected(0, 0, come)) << "nothing is under way";
  recall.Expect(0, 0, {{7, true}, {3, true}, {9, true}}, {100, 101, 102});
  EXPECT_FALSE(recall.TakeExpected(0, 0, come)) << "nothing has come";
  const std::string row(Layout().row_bytes(), 'x');
  recall.staging().Put(0, 3, row.data());
  recall.staging().Put(0, 9, row.data());
  recall.staging().Put(0, 5, row.data());
  EXPECT_FALSE(recall.Due(0, 0, queries_)) << "it need not choose anew";
  ASSERT_TRUE(recall.TakeExpected(0, 0, come));
  EXPECT_EQ(come.wanted, (std::vector<int32_t>{3, 9}));
  EXPECT_EQ(come.victims, (std::vector<int32_t>{100, 101, 102}));
  recall.KeepVictims(0, 0, {102});
  recall.staging().Put(0, 7, row.data());
  ASSERT_TRUE(recall.TakeExpected(0, 0, come));
  EXPECT_EQ(come.wanted, (std::vector<int32_t>{7}));
  EXPECT_EQ(come.victims, (std::vector<int32_t>{102}));
  EXPECT_FALSE(recall.TakeExpected(0, 0, come)) << "each once";

  recall.Expect(0, 0, {{3, true}}, {100});
  for (float& x : query_) x = -x;
  EXPECT_TRUE(recall.Due(0, 0, queries_));
  EXPECT_TRUE(recall.TakeExpected(0, 0, come)) << "it has not chosen yet";
  recall.Expect(0, 0, {{5, true}}, {100});
  Choose(recall, *log, false);
  EXPECT_FALSE(recall.TakeExpected(0, 0, come)) << "it has chosen anew";
}

TEST_F(RowRecallTest, AsyncLeavesRowsWithLittleOfTheAttention) {
  RecallSpec spec = Spec(RecallMode::kAsync);
  spec.min_share = 0;
  for (const double least : {0.0, 0.01, 0.4}) {
    spec.min_share = least;
    RowRecall recall(Layout(), kGroup, spec);
    recall.set_slots(64);
    const auto log = MakeLog(recall);
    // Attention over all rows, the resident ones too.
    std::vector<double> share(kTokens, 0.0);
    for (int g = 0; g < kGroup; ++g) {
      std::vector<double> e(kTokens);
      double sum = 0;
      for (int t = 0; t < kTokens; ++t) {
        double dot = 0;
        for (int c = 0; c < 32; ++c) dot += double{queries_[g][c]} * keys_[t * 32 + c];
        sum += e[t] = std::exp(dot / std::sqrt(32.0));
      }
      for (int t = 0; t < kTokens; ++t) share[t] += e[t] / sum / kGroup;
    }
    size_t clearly = 0;
    for (int t = 0; t < kTokens - kResident; ++t) clearly += static_cast<size_t>(share[t] > 2 * least);
    const RowChoice choice = Choose(recall, *log, /*exact=*/false);
    EXPECT_GE(choice.wanted.size(), std::min<size_t>(clearly, 32));
    for (int32_t position : choice.wanted) EXPECT_GT(share[position], least / 2);
  }
}

// Beside ProbeByCosine, which is given the keys themselves.
TEST_F(RowRecallTest, ByCosineRowsAreWantedThatAreAsNearAQueryAsTheBestResidentOne) {
  constexpr int kEvicted = kTokens - kResident;
  RecallSpec spec = Spec(RecallMode::kAsync, RecallIndex::kExact);
  spec.trigger = RecallTrigger::kCosine;
  RowRecall recall(Layout(), kGroup, spec);
  recall.set_slots(100);
  const auto log = MakeLog(recall);
  EXPECT_EQ(recall.index_bytes(), 3 * 64 * (32 * 2 + 4)) << "keys and their lengths";
  for (int i = kEvicted * 32; i < kTokens * 32; ++i) {  // resident rows are far from the queries
    for (int g = 0; g < kGroup; ++g) query_[g * 32 + i % 32] -= 0.3f * keys_[i];
  }
  std::optional<double> theta;
  size_t wanted = 0;
  for (int step = 0; step < 4; ++step) {
    if (step > 0) {
      for (int c = 0; c < 64; ++c) query_[c] += step == 3 ? keys_[5 * 32 + c % 32] : 0.3f * keys_[(7 * step + c) % 900];
    }
    std::vector<float> retained, offloaded;
    std::vector<int32_t> positions;
    for (int t = 0; t < kTokens; ++t) {
      const bool resident = t >= kEvicted || rows_.head(0, 0).Find(t) >= 0;
      std::vector<float>& to = resident ? retained : offloaded;
      to.insert(to.end(), keys_.begin() + t * 32, keys_.begin() + (t + 1) * 32);
      if (!resident) positions.push_back(t);
    }
    const CosineProbeResult expected = ProbeByCosine(query_, retained, offloaded, 32, spec.ema_beta, theta);
    std::vector<std::pair<float, int32_t>> passing;
    for (size_t i = 0; i < positions.size(); ++i) {
      if (expected.recall[i] != 0) passing.emplace_back(-expected.similarity[i], positions[i]);
    }
    std::sort(passing.begin(), passing.end());
    const RowChoice choice = Choose(recall, *log, /*exact=*/false);
    EXPECT_EQ(compared_, 0);
    ASSERT_EQ(choice.wanted.size(), std::min<size_t>(passing.size(), 50)) << step;
    for (size_t i = 0; i < choice.wanted.size(); ++i) EXPECT_EQ(choice.wanted[i], passing[i].second) << step;
    wanted += choice.wanted.size();
    Install(choice, 100);
  }
  EXPECT_GT(wanted, 5u);
}

// Shares of the attention by which heads choose together: the further on, the more.
std::vector<float> RisingShares(int tokens) {
  std::vector<float> shares(tokens);
  for (int i = 0; i < tokens; ++i) shares[i] = 1e-4f * static_cast<float>(i + 1);
  return shares;
}

TEST_F(RowRecallTest, HeadsThatChooseTogetherDoSoByWhatAllMakeOfARow) {
  for (const bool exact : {true, false}) {
    RecallSpec spec = Spec(exact ? RecallMode::kSync : RecallMode::kAsync);
    spec.max_rows_per_step = 16;
    RowRecall recall(Layout(), kGroup, spec);
    recall.set_slots(8);
    const auto log = MakeLog(recall);
    RowScores scores;
    recall.Score(rows_, *log, 0, 0, queries_, kTokens, /*waits=*/exact, scores);
    recall.Weigh(0, 0, scores);
    recall.ChooseBy(RisingShares(kTokens), 0, 0, scores);
    const RowChoice choice = recall.Choose(0, 0, scores, exact);
    EXPECT_THAT(choice.wanted, ElementsAre(179, 178, 177, 176, 175, 174, 173, 172)) << "the last 20 are kept";
  }
}

TEST_F(RowRecallTest, AHeadThatFollowsNeedsNoQueries) {
  for (const bool exact : {true, false}) {
    RowRecall recall(Layout(), kGroup, Spec(exact ? RecallMode::kSync : RecallMode::kAsync));
    recall.set_slots(4);
    const auto log = MakeLog(recall);
    rows_.head(0, 0).Add(pool_, 100, RowKind::kRecalled);
    RowScores scores;
    recall.Follow(rows_, *log, 0, 0, RisingShares(kTokens), scores);
    const RowChoice choice = recall.Choose(0, 0, scores, exact);
    rows_.head(0, 0).Remove(rows_.head(0, 0).Find(100));
    ASSERT_GE(choice.wanted.size(), 2u);
    EXPECT_EQ(choice.wanted[0], 179);
    EXPECT_EQ(choice.wanted[1], 178);
    if (exact) {
      EXPECT_THAT(choice.victims, ElementsAre(100));
    }
    recall.Follow(rows_, *log, 0, 0, {}, scores);
    EXPECT_TRUE(recall.Choose(0, 0, scores, exact).wanted.empty()) << "the layer below has chosen nothing";
  }
}

TEST_F(RowRecallTest, RowsThatKeepTheirSlotsBecomeThePolicys) {
  constexpr int kSlots = 16;
  RecallSpec spec = Spec(RecallMode::kSync);
  spec.promote_after = 32;
  RowRecall recall(Layout(), kGroup, spec);
  recall.set_slots(kSlots);
  const auto log = MakeLog(recall);
  Install(Choose(recall, *log, true), kSlots);
  const HeadRows& head = rows_.head(0, 0);
  ASSERT_EQ(head.recalled_rows(), kSlots);
  Choose(recall, *log, true);  // finds them in their slots
  recall.Promote(rows_, kTokens + 31);
  EXPECT_EQ(head.recalled_rows(), kSlots) << "not long enough";
  recall.Promote(rows_, kTokens + 32);
  EXPECT_EQ(head.recalled_rows(), 0);
  EXPECT_EQ(head.rows(), kResident + kSlots);
  EXPECT_EQ(recall.counters().promoted_rows, kSlots);
  // Others can come into the slots.
  const RowChoice next = Choose(recall, *log, true);
  EXPECT_EQ(next.wanted.size(), static_cast<size_t>(kSlots));
  for (int32_t position : next.wanted) EXPECT_EQ(head.Find(position), -1);
}

TEST_F(RowRecallTest, RowsAreNeverPromotedWhereTheRequestSaysSo) {
  RecallSpec spec = Spec(RecallMode::kSync);
  spec.promote_after = 0;
  RowRecall recall(Layout(), kGroup, spec);
  recall.set_slots(16);
  const auto log = MakeLog(recall);
  Install(Choose(recall, *log, true), 16);
  Choose(recall, *log, true);
  recall.Promote(rows_, kTokens + 100'000);
  EXPECT_EQ(rows_.head(0, 0).recalled_rows(), 16);
}

}  // namespace
}  // namespace tidepool
