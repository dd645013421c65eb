// What the tests beside this one show for single values, seen from the engine: with bits flipped in what the cache
// holds, in memory or in the files of its disk, an answer is the one that an undamaged cache gives, or says that rows
// were lost.
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "cacheservice/embedded/embedded_cache.h"
#include "tests/reliability/bit_flip.h"
#include "tests/support/collector.h"
#include "tests/support/eventually.h"
#include "tests/support/paths.h"
#include "tests/support/temp_dir.h"
#include "worker/backend/backend.h"
#include "worker/engine/engine.h"
#include "worker/model/model.h"

namespace tidepool {
namespace {

using test::Answer;
using test::BitFlip;
using test::RunRequest;

constexpr int kRounds = 20;

std::shared_ptr<const Model> TinyModel() {
  static const std::shared_ptr<const Model> model = *Model::Load(test::DataPath("tiny_models/llama_f32.gguf"));
  return model;
}

KvLayout Layout() { return LayoutOf(*TinyModel(), KvType::kF16); }

std::vector<int32_t> RandomTokens(int count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random() % TinyModel()->config().vocabulary);
  return tokens;
}

GenerationRequest Turn(const std::string& session, const CompressionSpec& spec, std::vector<int32_t> prompt) {
  GenerationRequest request;
  request.session_id = session;
  request.compression = spec;
  request.prompt = std::move(prompt);
  request.stop.max_tokens = 12;
  request.stop.ignore_eos = true;
  return request;
}

// Passes everything on; what is read may be flipped on its way, as by a wire or a memory that nobody checks.
class FlippingCache final : public BlockCache {
 public:
  explicit FlippingCache(BlockCache* storage) : storage_(storage) {}

  absl::StatusOr<PrefixHit> LookupPrefix(absl::Span<const BlockKey> chain, const ReadTerms& terms) override {
    return storage_->LookupPrefix(chain, terms);
  }
  void Offload(BlockId id, std::string value, OffloadOptions options, std::function<void(absl::Status)> done) override {
    ++offloads_;
    storage_->Offload(id, std::move(value), options, std::move(done));
  }
  void Recall(std::vector<RowSelection> selections, absl::Time deadline,
              std::function<void(absl::StatusOr<RecalledRows>)> done) override {
    storage_->Recall(std::move(selections), deadline,
                     [this, done = std::move(done)](absl::StatusOr<RecalledRows> rows) {
                       if (rows.ok() && !rows->rows.empty() && Chosen()) Flip(&rows->rows);
                       done(std::move(rows));
                     });
  }
  absl::StatusOr<std::vector<std::optional<std::string>>> FetchBlocks(absl::Span<const BlockId> ids,
                                                                      const ReadTerms& terms) override {
    auto values = storage_->FetchBlocks(ids, terms);
    if (values.ok() && Chosen()) Flip(&*(*values)[values->size() / 2]);
    return values;
  }
  BlockCacheStats Stats() const override { return storage_->Stats(); }

  // Flips a bit in one read of `reads`; 0: in none.
  void FlipOneOf(int reads) { one_of_ = reads; }
  int flips() const { return flips_; }
  int offloads() const { return offloads_; }

 private:
  bool Chosen() {
    MutexLock lock(&mutex_);
    return one_of_ > 0 && static_cast<int>(random_()) % one_of_ == 0;
  }
  void Flip(std::string* bytes) {
    MutexLock lock(&mutex_);
    const size_t at = random_() % bytes->size();
    (*bytes)[at] = static_cast<char>((*bytes)[at] ^ 1 << random_() % 8);
    ++flips_;
  }

  BlockCache* const storage_;
  std::atomic<int> one_of_{0}, flips_{0}, offloads_{0};
  Mutex mutex_;
  std::minstd_rand random_ ABSL_GUARDED_BY(mutex_){12};
};

// A cache and an engine over it, on a directory of its own.
class System {
 public:
  System() { Open(); }
  ~System() { engine_.reset(); }

  Engine& engine() { return *engine_; }
  FlippingCache& wire() { return *wire_; }
  CacheStats Stats() const { return cache_->blocks()->Stats(); }
  // A new worker, with nothing resident; what the former one offloaded is stored.
  void RestartEngine() {
    engine_.reset();
    EXPECT_TRUE(test::Eventually([this] {
      const BlockCacheStats stats = cache_->Stats();
      return stats.offloaded_blocks + stats.offload_failures == wire_->offloads();
    }));
    StartEngine();
  }
  // Of values in the memory tier, in place.
  void FlipInMemory(int values, std::mt19937* random) {
    const std::vector<BlockId> ids = cache_->blocks()->Ids(/*all=*/true);
    ASSERT_FALSE(ids.empty());
    for (int i = 0; i < values; ++i) {
      const BlockValue held = *cache_->blocks()->Get(ids[(*random)() % ids.size()]);
      if (held == nullptr) continue;  // flipped before
      BitFlip(*held, random).Apply(const_cast<std::string*>(held.get()));
    }
  }
  // Of values in files, with the cache closed meanwhile, so that nothing of them is in memory.
  void FlipOnDisk(int values, std::mt19937* random) {
    engine_.reset();
    wire_.reset();
    cache_.reset();
    int flipped = 0;
    for (const auto& entry : std::filesystem::directory_iterator(dir_.File("db"))) {
      if (entry.path().extension() != ".sst") continue;
      std::string bytes = test::ReadFile(entry.path());
      std::vector<size_t> places;
      for (size_t at = bytes.find("TPB1"); at != std::string::npos; at = bytes.find("TPB1", at + 1)) {
        places.push_back(at);
      }
      const size_t value_bytes = BlockValueBytes(Layout(), kBlockTokens);
      for (int i = 0; i < values && !places.empty(); ++i) {
        const size_t at = places[(*random)() % places.size()];
        if (at + value_bytes > bytes.size()) continue;  // a partial block, the last
        BitFlip(std::string_view(bytes).substr(at, value_bytes), random).Apply(&bytes, at);
        ++flipped;
      }
      std::ofstream(entry.path(), std::ios::binary) << bytes;
    }
    EXPECT_GT(flipped, 0);
    Open();
  }

 private:
  void Open() {
    CacheOptions options;
    options.data_dir = dir_.path();
    cache_ = *EmbeddedCache::Open(options, Layout());
    wire_ = std::make_unique<FlippingCache>(cache_.get());
    StartEngine();
  }
  void StartEngine() {
    EngineOptions options;
    options.device_kv_bytes = size_t{64} << 20;
    options.prefill_chunk_tokens = 64;
    engine_ = *Engine::Create(options, TinyModel(), wire_.get(), cache_->manifests());
  }

  test::TempDir dir_;
  std::unique_ptr<EmbeddedCache> cache_;
  std::unique_ptr<FlippingCache> wire_;
  std::unique_ptr<Engine> engine_;
};

// Answers to the prompts of seeds, from a cache that was never damaged.
std::vector<std::vector<int32_t>> CleanAnswers(int context_tokens, const CompressionSpec& spec, bool session) {
  System clean;
  std::vector<std::vector<int32_t>> answers;
  for (int round = 0; round < kRounds; ++round) {
    const std::string name = session ? absl::StrCat("s", round) : "";
    Answer answer = RunRequest(clean.engine(), Turn(name, spec, RandomTokens(context_tokens, round)));
    if (session) answer = RunRequest(clean.engine(), Turn(name, spec, RandomTokens(5, 1000 + round)));
    EXPECT_EQ(answer.result.status, absl::OkStatus());
    answers.push_back(answer.tokens);
  }
  return answers;
}

TEST(TokenFlipTest, AStoredPrefixThatIsFlippedInMemoryIsComputedAgainAndReplaced) {
  const auto expected = CleanAnswers(300, {}, false);
  System system;
  std::mt19937 random(8);
  int recomputed = 0;
  for (int round = 0; round < kRounds; ++round) {
    const std::vector<int32_t> prompt = RandomTokens(300, round);
    ASSERT_EQ(RunRequest(system.engine(), Turn("", {}, prompt)).tokens, expected[round]);
    system.RestartEngine();
    system.FlipInMemory(4 + 4 * round, &random);  // of all that is stored
    const Answer again = RunRequest(system.engine(), Turn("", {}, prompt));
    EXPECT_EQ(again.tokens, expected[round]) << "round " << round;
    recomputed += again.result.usage.cached_prompt_tokens == 0;
    // What nobody has read is still damaged; who meets it replaces it.
    int64_t cached = again.result.usage.cached_prompt_tokens;
    for (int turn = 0; turn < 2 && cached == 0; ++turn) {
      system.RestartEngine();
      const Answer next = RunRequest(system.engine(), Turn("", {}, prompt));
      EXPECT_EQ(next.tokens, expected[round]);
      cached = next.result.usage.cached_prompt_tokens;
    }
    EXPECT_GT(cached, 0) << "round " << round;
  }
  EXPECT_GT(system.Stats().memory.corrupt, 0u);
  EXPECT_GT(recomputed, kRounds / 4);
}

TEST(TokenFlipTest, ASessionWhoseBlocksAreFlippedIsReadFromTheOtherTierOrComputedAgain) {
  const auto expected = CleanAnswers(200, {}, true);
  System system;
  std::mt19937 random(9);
  int recomputed = 0;
  for (int round = 0; round < kRounds; ++round) {
    const std::string name = absl::StrCat("s", round);
    ASSERT_EQ(RunRequest(system.engine(), Turn(name, {}, RandomTokens(200, round))).result.status, absl::OkStatus());
    if (round % 5 == 0) {
      system.FlipOnDisk(10 + 4 * round, &random);
    } else {
      system.RestartEngine();
      system.FlipInMemory(10 + 4 * round, &random);
    }
    const Answer next = RunRequest(system.engine(), Turn(name, {}, RandomTokens(5, 1000 + round)));
    ASSERT_EQ(next.result.status, absl::OkStatus());
    EXPECT_EQ(next.tokens, expected[round]) << "round " << round;
    recomputed += next.result.usage.cached_prompt_tokens == 0;
  }
  EXPECT_GT(recomputed, 0);
}

CompressionSpec Recalling() {
  CompressionSpec spec = *PresetSpec("snapkv");
  spec.budget_fraction = 0.25;
  spec.window_tokens = 8;
  spec.recall.mode = RecallMode::kSync;
  spec.recall.on_loss = OnRecallLoss::kFail;
  return spec;
}

TEST(TokenFlipTest, ARowThatIsFlippedInMemoryIsRecalledFromDisk) {
  const auto expected = CleanAnswers(400, Recalling(), true);
  System system;
  std::mt19937 random(10);
  for (int round = 0; round < kRounds; ++round) {
    const std::string name = absl::StrCat("s", round);
    ASSERT_EQ(RunRequest(system.engine(), Turn(name, Recalling(), RandomTokens(400, round))).result.status,
              absl::OkStatus());
    system.FlipInMemory(20 + 10 * round, &random);
    const Answer answer = RunRequest(system.engine(), Turn(name, Recalling(), RandomTokens(5, 1000 + round)));
    ASSERT_EQ(answer.result.status, absl::OkStatus());
    EXPECT_GT(answer.result.usage.recalled_rows, 0);
    EXPECT_EQ(answer.tokens, expected[round]) << "round " << round;
  }
  EXPECT_GT(system.Stats().memory.corrupt, 0u);
}

TEST(TokenFlipTest, ARowThatIsFlippedOnItsWayIsNeverComputedWith) {
  const auto expected = CleanAnswers(400, Recalling(), true);
  System system;
  int lost = 0, whole = 0;
  for (int round = 0; round < kRounds; ++round) {
    const std::string name = absl::StrCat("s", round);
    ASSERT_EQ(RunRequest(system.engine(), Turn(name, Recalling(), RandomTokens(400, round))).result.status,
              absl::OkStatus());
    const int flips = system.wire().flips();
    system.wire().FlipOneOf(1 + round % 10);
    const Answer answer = RunRequest(system.engine(), Turn(name, Recalling(), RandomTokens(5, 1000 + round)));
    system.wire().FlipOneOf(0);
    if (answer.result.status.ok()) {
      EXPECT_EQ(answer.tokens, expected[round]) << "round " << round;
      EXPECT_EQ(answer.result.usage.lost_rows, 0);
      ++whole;
    } else {
      EXPECT_EQ(answer.result.status.code(), absl::StatusCode::kUnavailable) << answer.result.status;
      EXPECT_GT(system.wire().flips(), flips);
      ++lost;
    }
  }
  EXPECT_GT(lost, 0);
  EXPECT_GT(whole, 0);
}

TEST(TokenFlipTest, ABlockThatIsFlippedOnItsWayIsComputedAgain) {
  const auto expected = CleanAnswers(300, {}, false);
  System system;
  for (int round = 0; round < kRounds; ++round) {
    const std::vector<int32_t> prompt = RandomTokens(300, round);
    ASSERT_EQ(RunRequest(system.engine(), Turn("", {}, prompt)).tokens, expected[round]);
    system.RestartEngine();
    system.wire().FlipOneOf(1);
    const Answer again = RunRequest(system.engine(), Turn("", {}, prompt));
    system.wire().FlipOneOf(0);
    EXPECT_EQ(again.tokens, expected[round]) << "round " << round;
    EXPECT_EQ(again.result.usage.cached_prompt_tokens, 0);
  }
  EXPECT_GE(system.wire().flips(), kRounds);
}

}  // namespace
}  // namespace tidepool
