#include "worker/kv/key_index.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "base/bytes.h"

namespace tidepool {
namespace {

constexpr int kHeadDim = 64, kGroup = 2;

KvLayout Layout() {
  KvLayout layout;
  layout.model_fingerprint = "test";
  layout.layers = 1;
  layout.kv_heads = 2;
  layout.head_dim = kHeadDim;
  layout.type = KvType::kF16;
  return layout;
}

// Keys that drift with their position, as rotated keys do.
std::vector<float> Block(int block) {
  std::mt19937 random(block + 1);
  std::normal_distribution<float> normal;
  std::vector<float> keys;
  for (int token = 0; token < kBlockTokens; ++token) {
    const float angle = 0.002f * static_cast<float>(block * kBlockTokens + token);
    for (int c = 0; c < kHeadDim; ++c) {
      keys.push_back(0.5f * normal(random) + 2 * std::sin(angle * static_cast<float>(c % 8) + static_cast<float>(c)));
    }
  }
  return keys;
}

std::vector<float> Queries() {
  std::mt19937 random(99);
  std::normal_distribution<float> normal;
  std::vector<float> queries(kGroup * kHeadDim);
  for (float& x : queries) x = normal(random);
  return queries;
}

std::vector<float> ScoresOf(const KeyIndex& index, int head, int32_t blocks) {
  const std::vector<float> queries = Queries();
  const std::vector<const float*> q = {queries.data(), queries.data() + kHeadDim};
  std::vector<float> scores(static_cast<size_t>(kGroup) * blocks * kBlockTokens);
  const std::vector<float*> out = {scores.data(), scores.data() + static_cast<size_t>(blocks) * kBlockTokens};
  index.Score(head, q, blocks, out.data());
  return scores;
}

std::vector<float> ExactScores(int32_t blocks) {
  const std::vector<float> queries = Queries();
  std::vector<float> scores;
  for (int g = 0; g < kGroup; ++g) {
    for (int block = 0; block < blocks; ++block) {
      const std::vector<float> keys = Block(block);
      for (int token = 0; token < kBlockTokens; ++token) {
        float dot = 0;
        for (int c = 0; c < kHeadDim; ++c) dot += queries[g * kHeadDim + c] * keys[token * kHeadDim + c];
        scores.push_back(dot);
      }
    }
  }
  return scores;
}

// Share of the scores' variance that the estimate leaves unexplained.
double Unexplained(const std::vector<float>& estimate, const std::vector<float>& exact) {
  double mean = 0, variance = 0, error = 0;
  for (float x : exact) mean += x / static_cast<double>(exact.size());
  for (size_t i = 0; i < exact.size(); ++i) {
    variance += (exact[i] - mean) * (exact[i] - mean);
    error += (exact[i] - estimate[i]) * (exact[i] - estimate[i]);
  }
  return error / variance;
}

const std::vector<float> kEven(kHeadDim, 1.0f);

void AddPrompt(KeyIndex& index, int first, int end) {
  for (int head = 0; head < 2; ++head) {
    for (int block = first; block < end; ++block) index.AddBlock(head, Block(block), /*prompt=*/true);
    index.Learn(head, kEven);
  }
}

TEST(KeyIndexTest, EachKindEstimatesWhatItsBytesAllow) {
  struct Case {
    RecallIndex kind;
    double unexplained;
    int64_t bytes_per_row;  // tables apart
  };
  for (const Case& c : {Case{RecallIndex::kExact, 1e-6, 128}, Case{RecallIndex::kK4, 0.01, 40},
                        Case{RecallIndex::kPq16x4, 0.2, 8}, Case{RecallIndex::kPq8x8, 0.2, 8}}) {
    const std::unique_ptr<KeyIndex> index = MakeKeyIndex(c.kind, Layout(), kGroup);
    AddPrompt(*index, 0, 12);
    EXPECT_LT(Unexplained(ScoresOf(*index, 1, 12), ExactScores(12)), c.unexplained) << static_cast<int>(c.kind);
    const int64_t rows = 2 * 12 * kBlockTokens;
    EXPECT_GE(index->bytes(), rows * c.bytes_per_row);
    EXPECT_LE(index->bytes(), rows * c.bytes_per_row + 2 * (kHeadDim * 256 + 13 * kHeadDim));
  }
}

TEST(KeyIndexTest, APageIsNeverWorseThanItsBestRow) {
  const std::unique_ptr<KeyIndex> index = MakeKeyIndex(RecallIndex::kPage16, Layout(), kGroup);
  AddPrompt(*index, 0, 2);
  const std::vector<float> bound = ScoresOf(*index, 0, 2), exact = ExactScores(2);
  for (size_t i = 0; i < exact.size(); ++i) {
    EXPECT_GE(bound[i], exact[i] - 0.05f) << i;
    EXPECT_EQ(bound[i], bound[i / 16 * 16]) << "one score for a page";
  }
}

TEST(ProductIndexTest, KeysOfAPromptAreHeldUntilItIsIn) {
  const std::unique_ptr<KeyIndex> index = MakeKeyIndex(RecallIndex::kPq16x4, Layout(), kGroup);
  for (int head = 0; head < 2; ++head) {
    for (int block = 0; block < 6; ++block) index->AddBlock(head, Block(block), /*prompt=*/true);
  }
  EXPECT_LT(Unexplained(ScoresOf(*index, 0, 6), ExactScores(6)), 1e-6);
  EXPECT_EQ(index->held_bytes(), 2 * 6 * kBlockTokens * kHeadDim * 2);
  EXPECT_EQ(index->bytes(), 0);
  for (int head = 0; head < 2; ++head) index->Learn(head, kEven);
  EXPECT_EQ(index->held_bytes(), 0);
  EXPECT_GT(index->table_bytes(), 0);
  EXPECT_EQ(index->bytes(), index->table_bytes() + 2 * 6 * kBlockTokens * kHeadDim / 8);
}

TEST(ProductIndexTest, AFewTokensAreTooFewToLearnFrom) {
  const std::unique_ptr<KeyIndex> index = MakeKeyIndex(RecallIndex::kPq16x4, Layout(), kGroup);
  AddPrompt(*index, 0, 2);
  EXPECT_LT(Unexplained(ScoresOf(*index, 0, 2), ExactScores(2)), 1e-6) << "still held";
  EXPECT_FALSE(index->overdue());
  for (int block = 2; block < 8; ++block) {
    for (int head = 0; head < 2; ++head) index->AddBlock(head, Block(block), /*prompt=*/false);
  }
  EXPECT_TRUE(index->overdue()) << "held keys of a long answer must be coded some time";
  for (int head = 0; head < 2; ++head) index->Learn(head, kEven);
  EXPECT_FALSE(index->overdue());
}

TEST(ProductIndexTest, ALaterPromptHasTablesOfItsOwnAndTheAnswerUsesThem) {
  const std::unique_ptr<KeyIndex> index = MakeKeyIndex(RecallIndex::kPq16x4, Layout(), kGroup);
  AddPrompt(*index, 0, 8);
  const int64_t first = index->bytes();
  for (int head = 0; head < 2; ++head) index->AddBlock(head, Block(8), /*prompt=*/false);
  EXPECT_EQ(index->bytes(), first + 2 * kBlockTokens * 8) << "coded as it comes, no new tables";
  AddPrompt(*index, 9, 24);
  EXPECT_GT(index->bytes(), first + 2 * 16 * kBlockTokens * 8 + 1000) << "new tables";
  EXPECT_LT(Unexplained(ScoresOf(*index, 0, 24), ExactScores(24)), 0.2);
}

TEST(ProductIndexTest, RestoredFromItsTablesAndTheBlocksItIsTheSame) {
  const std::unique_ptr<KeyIndex> index = MakeKeyIndex(RecallIndex::kPq16x4, Layout(), kGroup);
  AddPrompt(*index, 0, 8);
  for (int head = 0; head < 2; ++head) index->AddBlock(head, Block(8), /*prompt=*/false);
  ByteWriter out;
  index->Save(out);
  const std::string saved = std::move(out).Take();
  const std::unique_ptr<KeyIndex> restored = MakeKeyIndex(RecallIndex::kPq16x4, Layout(), kGroup);
  ByteReader in(saved);
  ASSERT_TRUE(restored->Load(in));
  EXPECT_TRUE(in.done());
  for (int head = 0; head < 2; ++head) {
    for (int block = 0; block < 9; ++block) restored->AddBlock(head, Block(block), /*prompt=*/true);
  }
  EXPECT_EQ(ScoresOf(*restored, 1, 9), ScoresOf(*index, 1, 9));
  EXPECT_EQ(restored->bytes(), index->bytes());
  // And both go on alike.
  for (KeyIndex* one : {index.get(), restored.get()}) AddPrompt(*one, 9, 14);
  EXPECT_EQ(ScoresOf(*restored, 0, 14), ScoresOf(*index, 0, 14));
}

TEST(ProductIndexTest, DamagedTablesAreRefused) {
  const std::unique_ptr<KeyIndex> index = MakeKeyIndex(RecallIndex::kPq16x4, Layout(), kGroup);
  AddPrompt(*index, 0, 8);
  ByteWriter out;
  index->Save(out);
  const std::string saved = std::move(out).Take();
  for (size_t size : {size_t{0}, size_t{3}, saved.size() / 2, saved.size() - 1}) {
    ByteReader in(std::string_view(saved).substr(0, size));
    EXPECT_FALSE(MakeKeyIndex(RecallIndex::kPq16x4, Layout(), kGroup)->Load(in)) << size << " bytes";
  }
  std::string wrong = saved;
  wrong[0] = '\xff';  // a count of blocks without end
  wrong[3] = '\xff';
  ByteReader in(wrong);
  EXPECT_FALSE(MakeKeyIndex(RecallIndex::kPq16x4, Layout(), kGroup)->Load(in));
}

}  // namespace
}  // namespace tidepool
