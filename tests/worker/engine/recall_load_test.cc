// What asynchronous recall asks the cache service for at once: sequences of a batch beside real storage that is
// counted, and that may be silent.
#include <gtest/gtest.h>

#include <bit>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "cacheservice/embedded/embedded_cache.h"
#include "tests/support/eventually.h"
#include "tests/support/paths.h"
#include "tests/support/temp_dir.h"
#include "tests/worker/engine/context_step.h"
#include "worker/engine/context.h"
#include "worker/engine/engine.h"
#include "worker/kv/batch_recall.h"
#include "worker/model/model.h"

namespace tidepool {
namespace {

// Passes everything on to the storage, but leaves the next `silent` recalls unanswered.
class CountedCache : public BlockCache {
 public:
  explicit CountedCache(BlockCache* storage) : storage_(storage) {}

  absl::StatusOr<PrefixHit> LookupPrefix(absl::Span<const BlockKey> chain, const ReadTerms& terms) override {
    return storage_->LookupPrefix(chain, terms);
  }
  void Offload(BlockId id, std::string value, OffloadOptions options, std::function<void(absl::Status)> done) override {
    storage_->Offload(id, std::move(value), std::move(options), std::move(done));
  }
  void Recall(std::vector<RowSelection> selections, absl::Time deadline,
              std::function<void(absl::StatusOr<RecalledRows>)> done) override {
    int64_t rows = 0;
    for (const RowSelection& selection : selections) rows += std::popcount(selection.row_mask);
    asked.push_back(rows);
    if (silent > 0) {
      --silent;
      return;
    }
    storage_->Recall(std::move(selections), deadline, std::move(done));
  }
  absl::StatusOr<std::vector<std::optional<std::string>>> FetchBlocks(absl::Span<const BlockId> ids,
                                                                      const ReadTerms& terms) override {
    return storage_->FetchBlocks(ids, terms);
  }
  BlockCacheStats Stats() const override { return storage_->Stats(); }

  int64_t rows() const { return std::accumulate(asked.begin(), asked.end(), int64_t{0}); }

  std::vector<int64_t> asked;  // rows of each request
  int silent = 0;

 private:
  BlockCache* const storage_;
};

class RecallLoadTest : public testing::Test {
 protected:
  RecallLoadTest() {
    CacheOptions options;
    options.data_dir = dir_.path();
    storage_ = *EmbeddedCache::Open(options, layout_);
    cache_ = std::make_unique<CountedCache>(storage_.get());
    backend_ = *CreateCpuBackend(model_, {.threads = 2, .kv_bytes = size_t{64} << 20});
    recall_ = std::make_unique<BatchRecall>(backend_.get(), cache_.get(), model_->config().heads, absl::Seconds(10));
  }

  static CompressionSpec Spec(int rows, int budget_ms) {
    CompressionSpec spec = *PresetSpec("streaming");
    spec.budget_fraction = 0.1;
    spec.recall.mode = RecallMode::kAsync;
    spec.recall.rows = rows;
    spec.recall.turn = 0;
    spec.recall.min_share = 0;
    spec.recall.budget_ms = budget_ms;
    return spec;
  }

  void AddSequence(const CompressionSpec& spec, int prompt) {
    sequences_.push_back(
        std::make_unique<Context>(backend_.get(), cache_.get(),
                                  ContextOptions{.spec = spec, .nonce = "n", .query_heads = model_->config().heads}));
    Step(absl::MakeSpan(&sequences_.back(), 1), prompt, /*prompt=*/true);
    sequences_.back()->EndPrefill();
  }

  // All full blocks are stored, so that their rows have to be asked for.
  bool AreStored() {
    bool stored = true;
    for (const std::unique_ptr<Context>& context : sequences_) {
      for (int32_t block = 0; block < context->log().full_blocks(); ++block) {
        for (int layer = 0; layer < layout_.layers; ++layer) stored = stored && context->log().IsStored(block, layer);
      }
    }
    return stored;
  }

  // A token of all sequences.
  void Decode() { Step(absl::MakeSpan(sequences_), 1, /*prompt=*/false); }

  int64_t LateRequests() const { return recall_->requests().async.late; }

  const std::shared_ptr<const Model> model_ = *Model::Load(test::DataPath("tiny_models/llama_f32.gguf"));
  const KvLayout layout_ = LayoutOf(*model_, KvType::kF16);
  std::unique_ptr<CountedCache> cache_;

 private:
  void Step(absl::Span<std::unique_ptr<Context>> contexts, int32_t count, bool prompt) {
    std::vector<Context*> all;
    for (const std::unique_ptr<Context>& context : contexts) {
      std::vector<int32_t> tokens(count);
      for (int32_t& token : tokens) token = static_cast<int32_t>(random_() % model_->config().vocabulary);
      context->AddTokens(tokens);
      all.push_back(context.get());
    }
    test::ComputeStep(*backend_, *recall_, all, count, prompt);
    for (Context* const context : all) context->EndStep(count, prompt);
  }

  std::mt19937 random_{1};
  test::TempDir dir_;
  std::unique_ptr<EmbeddedCache> storage_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<BatchRecall> recall_;
  std::vector<std::unique_ptr<Context>> sequences_;
};

TEST_F(RecallLoadTest, ABatchAsksForWhatComesInTimeAndForTheRestLater) {
  constexpr int kSequences = 6;
  for (int i = 0; i < kSequences; ++i) AddSequence(Spec(/*rows=*/800, /*budget_ms=*/1), 3000);
  ASSERT_TRUE(test::Eventually([&] { return AreStored(); }));
  const int64_t most = (int64_t{64} << 10) / static_cast<int64_t>(layout_.row_bytes());
  Decode();
  EXPECT_GT(cache_->rows(), most / 2);
  EXPECT_LE(cache_->rows(), most + kBlockTokens) << "of the last block all rows are asked for together";
  EXPECT_TRUE(test::Eventually([&] {
    Decode();
    return cache_->rows() > 3 * most;
  }));
}

TEST_F(RecallLoadTest, RequestsOfABatchThatAreLateTogetherDoNotMakeTheServiceLeftAlone) {
  constexpr int kSequences = 12;
  for (int i = 0; i < kSequences; ++i) AddSequence(Spec(/*rows=*/4, /*budget_ms=*/20), 300);
  ASSERT_TRUE(test::Eventually([&] { return AreStored(); }));
  cache_->silent = kSequences;
  Decode();
  ASSERT_EQ(cache_->silent, 0) << "all of them ask as their answers begin";
  const absl::Time late = absl::Now() + absl::Milliseconds(20);
  ASSERT_TRUE(test::Eventually([&] { return absl::Now() > late; }));
  Decode();
  ASSERT_EQ(LateRequests(), kSequences);
  const size_t before = cache_->asked.size();
  for (int step = 0; step < 8; ++step) Decode();
  EXPECT_GT(cache_->asked.size(), before);
}

}  // namespace
}  // namespace tidepool
