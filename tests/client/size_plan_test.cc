#include "client/cli/size_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "cacheservice/rocksdb/database.h"
#include "cacheservice/tiers/tiered_store.h"
#include "tests/support/blocks.h"
#include "tests/support/temp_dir.h"

namespace tidepool::cli {
namespace {

using testing::HasSubstr;

SizeQuestion Question(int64_t context_tokens) {
  SizeQuestion question;
  question.layout = test::SmallLayout();
  question.context_tokens = context_tokens;
  question.answer_tokens = 64;
  return question;
}

TEST(SizePlanTest, AFullCacheTakesAllOfTheContextOnTheDevice) {
  const auto plan = PlanSize(Question(6400));
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->token_bytes, test::SmallLayout().token_bytes());
  EXPECT_EQ(plan->full_bytes, 6400 * plan->token_bytes);
  EXPECT_GE(plan->reserved_bytes, plan->full_bytes);
  EXPECT_EQ(plan->blocks, 100u);
  EXPECT_EQ(plan->index_bytes, 0u);
  EXPECT_GT(plan->memory_bytes, plan->full_bytes) << "checksums and bookkeeping";
  EXPECT_GT(plan->disk_bytes, plan->full_bytes);
}

TEST(SizePlanTest, ABudgetTakesItsShareWhileAnswering) {
  SizeQuestion question = Question(6400);
  question.compression = *PresetSpec("snapkv");
  question.compression.budget_fraction = 0.1;
  question.compression.recall.mode = RecallMode::kAsync;
  const auto plan = PlanSize(question);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_LT(plan->answering_bytes, plan->full_bytes / 5);
  EXPECT_GE(plan->reserved_bytes, plan->full_bytes * 98 / 100) << "while the prompt is read all of it is there";
  EXPECT_GT(plan->index_bytes, 0u);
  EXPECT_GT(plan->staged_bytes, 0u);
  EXPECT_EQ(plan->host_bytes, plan->index_bytes + plan->staged_bytes);
}

TEST(SizePlanTest, TheFlagsHoldWhatWasAskedFor) {
  SizeQuestion question = Question(640);
  question.sessions = 40;
  const auto plan = PlanSize(question);
  ASSERT_TRUE(plan.ok()) << plan.status();
  const test::TempDir dir;
  DatabaseOptions database_options;
  database_options.data_dir = dir.path();
  const std::unique_ptr<Database> database = *Database::Open(database_options);
  CacheOptions options;
  options.data_dir = dir.path();
  options.memory_bytes = plan->memory_flag_bytes;
  options.disk_bytes = plan->disk_flag_bytes;
  const std::unique_ptr<TieredStore> store = *TieredStore::Open(options, database.get());
  const int blocks = static_cast<int>(question.sessions * 10);
  for (int block = 0; block < blocks; ++block) {
    std::vector<BlockPut> puts;
    for (int layer = 0; layer < question.layout.layers; ++layer) {
      puts.push_back(
          {.id = {test::NumberedKey(block), layer}, .value = test::NumberedValue(block, layer), .durable = true});
    }
    for (const auto& put : store->PutMany(std::move(puts))) ASSERT_TRUE(put.ok()) << put.status();
  }
  const CacheStats stats = store->Stats();
  EXPECT_EQ(stats.memory.evictions, 0u);
  EXPECT_EQ(stats.disk.evictions, 0u);
  EXPECT_EQ(stats.memory.bytes, question.sessions * plan->memory_bytes);
  EXPECT_EQ(stats.disk.bytes, question.sessions * plan->disk_bytes);
}

TEST(SizePlanTest, NumbersOutOfTheirRangeAreNamed) {
  SizeQuestion question = Question(64);
  EXPECT_THAT(std::string(PlanSize(question).status().message()), HasSubstr("--answer: 64"));
  question = Question(0);
  EXPECT_THAT(std::string(PlanSize(question).status().message()), HasSubstr("--context: 0"));
  question = Question(640);
  question.sessions = 0;
  EXPECT_THAT(std::string(PlanSize(question).status().message()), HasSubstr("--sessions"));
  question.sessions = 1;
  question.running = 65;
  EXPECT_THAT(std::string(PlanSize(question).status().message()), HasSubstr("--running"));
}

}  // namespace
}  // namespace tidepool::cli
