// Quotas of tenants over all tiers, by way of the store: whose blocks leave, and whose do not.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "cacheservice/rocksdb/database.h"
#include "cacheservice/tiers/tiered_store.h"
#include "policies/kv/block_codec.h"
#include "tests/support/blocks.h"
#include "tests/support/temp_dir.h"

namespace tidepool {
namespace {

using test::NumberedKey;
using test::NumberedValue;
using testing::HasSubstr;

constexpr uint64_t kMiB = uint64_t{1} << 20;

class TenantQuotaTest : public testing::Test {
 protected:
  TenantQuotaTest() { Open(); }
  void Open() {
    store_.reset();
    database_.reset();
    DatabaseOptions database;
    database.data_dir = dir_.path();
    database.write_buffer_bytes = uint64_t{256} << 10;
    database_ = *Database::Open(database);
    CacheOptions options;
    options.data_dir = dir_.path();
    options.memory_bytes = memory_bytes_;
    options.disk_bytes = disk_bytes_;
    store_ = *TieredStore::Open(options, database_.get());
  }
  absl::Status Put(const std::string& tenant, int number, bool durable = false) {
    std::vector<BlockPut> puts(1);
    puts[0] = {.id = {NumberedKey(number), 0}, .value = NumberedValue(number, 0), .durable = durable, .tenant = tenant};
    return store_->PutMany(std::move(puts))[0].status();
  }
  TenantStats StatsOf(const std::string& tenant) {
    for (const TenantStats& stats : store_->Tenants()) {
      if (stats.tenant == tenant) return stats;
    }
    return {};
  }
  int Stored(int first, int last) {
    int stored = 0;
    for (int number = first; number < last; ++number) stored += store_->Contains({NumberedKey(number), 0}) ? 1 : 0;
    return stored;
  }

  uint64_t memory_bytes_ = kMiB, disk_bytes_ = 64 * kMiB;
  test::TempDir dir_;
  std::unique_ptr<Database> database_;
  std::unique_ptr<TieredStore> store_;
};

TEST_F(TenantQuotaTest, WhatIsWhoseIsCountedInEveryTier) {
  for (int number = 0; number < 10; ++number) ASSERT_TRUE(Put("a", number, /*durable=*/true).ok());
  for (int number = 10; number < 15; ++number) ASSERT_TRUE(Put("b", number).ok());
  ASSERT_TRUE(Put("", 20).ok());
  EXPECT_EQ(StatsOf("a").memory_objects, 10u);
  EXPECT_EQ(StatsOf("a").disk_objects, 10u);
  EXPECT_EQ(StatsOf("b").memory_objects, 5u);
  EXPECT_EQ(StatsOf("b").disk_objects, 0u);
  EXPECT_EQ(StatsOf("").memory_objects, 1u);
  const CacheStats stats = store_->Stats();
  EXPECT_EQ(StatsOf("a").memory_bytes + StatsOf("b").memory_bytes + StatsOf("").memory_bytes, stats.memory.bytes);
  EXPECT_EQ(StatsOf("a").disk_bytes, stats.disk.bytes);
  EXPECT_EQ(store_->TenantOf({NumberedKey(3), 0}), "a");
  EXPECT_EQ(store_->TenantOf({NumberedKey(12), 0}), "b");
}

TEST_F(TenantQuotaTest, ATenantPastHisQuotaOfMemoryGivesUpHisOwnBlocks) {
  const uint64_t quota = 20 * NumberedValue(0, 0).size();
  ASSERT_TRUE(store_->SetQuota("greedy", {.memory_bytes = quota}).ok());
  for (int number = 0; number < 30; ++number) ASSERT_TRUE(Put("quiet", number).ok());
  for (int number = 100; number < 400; ++number) ASSERT_TRUE(Put("greedy", number).ok());
  EXPECT_EQ(StatsOf("quiet").memory_objects, 30u) << "memory was never full";
  EXPECT_LE(StatsOf("greedy").memory_bytes, quota);
  EXPECT_GT(StatsOf("greedy").memory_objects, 10u);
  EXPECT_GE(StatsOf("greedy").quota_evictions, 250u);
  EXPECT_EQ(StatsOf("quiet").quota_evictions, 0u);
  EXPECT_EQ(Stored(100, 400), 300) << "what left memory is on disk, or on its way there";
  ASSERT_TRUE(store_->Drain().ok());
  EXPECT_EQ(store_->TenantOf({NumberedKey(100), 0}), "greedy") << "also there";
}

TEST_F(TenantQuotaTest, ATenantPastHisQuotaOfTheDiskDropsHisOwnBlocksNeverAnothers) {
  ASSERT_TRUE(store_->SetQuota("greedy", {.disk_bytes = 16 * kMiB}).ok());
  for (int number = 0; number < 500; ++number) ASSERT_TRUE(Put("quiet", number, /*durable=*/true).ok());
  // 44 MB in all, of which he may keep what 16 MiB hold.
  for (int number = 1000; number < 6000; ++number)
    ASSERT_TRUE(Put("greedy", number, /*durable=*/number % 50 == 0).ok());
  ASSERT_TRUE(store_->Drain().ok());
  EXPECT_EQ(StatsOf("quiet").disk_objects, 500u);
  EXPECT_EQ(Stored(0, 500), 500);
  EXPECT_LE(StatsOf("greedy").disk_bytes, 16 * kMiB);
  EXPECT_GT(StatsOf("greedy").disk_bytes, 8 * kMiB);
  EXPECT_GT(StatsOf("greedy").quota_evictions, 1000u);
  EXPECT_EQ(StatsOf("quiet").quota_evictions, 0u);
  // The newest are there, the oldest are not, and it is remembered why.
  EXPECT_EQ(Stored(5900, 6000), 100);
  int gone = 0, remembered = 0;
  for (int number = 1000; number < 6000; ++number) {
    const BlockKey key = NumberedKey(number);
    bool asked = false;
    const BlockPlace place = store_->Places({&key, 1}, 1, absl::InfiniteFuture(), &asked)[0];
    gone += place.missing_layers;
    remembered += place.missing_layers == 1 && place.departure.reason == Departure::Reason::kQuota ? 1 : 0;
  }
  EXPECT_GT(gone, 1000);
  EXPECT_GT(remembered, gone / 2) << "a newer one may have overwritten an older one";
}

TEST_F(TenantQuotaTest, QuotasAndOwnersOutliveARestart) {
  ASSERT_TRUE(store_->SetQuota("a", {.memory_bytes = 5 * kMiB, .disk_bytes = 16 * kMiB, .pinned_bytes = 7}).ok());
  ASSERT_TRUE(store_->SetQuota("c", {.memory_bytes = 3}).ok());
  ASSERT_TRUE(store_->SetQuota("c", {}).ok()) << "taken away again";
  for (int number = 0; number < 10; ++number) ASSERT_TRUE(Put("a", number, /*durable=*/true).ok());
  for (int number = 10; number < 20; ++number) ASSERT_TRUE(Put("b", number, /*durable=*/true).ok());
  Open();
  EXPECT_EQ(StatsOf("a").quota, (TenantQuota{.memory_bytes = 5 * kMiB, .disk_bytes = 16 * kMiB, .pinned_bytes = 7}));
  EXPECT_EQ(store_->QuotaOf("c"), TenantQuota());
  EXPECT_EQ(StatsOf("a").disk_objects, 10u);
  EXPECT_EQ(StatsOf("b").disk_objects, 10u);
  EXPECT_EQ(Stored(0, 20), 20);
  for (int number = 0; number < 20; ++number) {
    const auto value = store_->Get({NumberedKey(number), 0});
    ASSERT_TRUE(value.ok() && *value != nullptr) << number;
    EXPECT_EQ(**value, NumberedValue(number, 0));
  }
  EXPECT_EQ(StatsOf("b").memory_objects, 10u) << "what a read brings back is whose it was";
}

TEST_F(TenantQuotaTest, AQuotaOfTheDiskThatIsTakenAwayTakesItsFiles) {
  ASSERT_TRUE(Put("a", 0, /*durable=*/true).ok());
  ASSERT_TRUE(store_->SetQuota("a", {.disk_bytes = 16 * kMiB}).ok());
  ASSERT_TRUE(Put("a", 1, /*durable=*/true).ok());
  EXPECT_EQ(Stored(0, 2), 2);
  const std::string own = dir_.path() + "/tenants/61";
  EXPECT_TRUE(std::filesystem::exists(own));
  ASSERT_TRUE(store_->SetQuota("a", {.disk_bytes = 32 * kMiB}).ok());
  EXPECT_EQ(Stored(0, 2), 2);
  ASSERT_TRUE(store_->SetQuota("a", {}).ok());
  EXPECT_FALSE(std::filesystem::exists(own));
  EXPECT_TRUE(store_->Contains({NumberedKey(0), 0})) << "of before he had files of his own";
  ASSERT_TRUE(Put("a", 2, /*durable=*/true).ok());
  EXPECT_EQ(StatsOf("a").disk_objects, 2u);
}

TEST_F(TenantQuotaTest, WhatTheDiskCannotGiveIsRefusedAndChangesNothing) {
  const auto refused = [this](const std::string& tenant, uint64_t disk_bytes) {
    const absl::Status status = store_->SetQuota(tenant, {.disk_bytes = disk_bytes});
    EXPECT_FALSE(status.ok());
    EXPECT_EQ(store_->QuotaOf(tenant), TenantQuota());
    return std::string(status.message());
  };
  EXPECT_THAT(refused("a", kMiB), HasSubstr("quota.disk_bytes: 1048576"));
  EXPECT_THAT(refused("a", 65 * kMiB), HasSubstr("quota.disk_bytes"));
  EXPECT_THAT(refused("a", 33 * kMiB), HasSubstr("half"));
  ASSERT_TRUE(store_->SetQuota("a", {.disk_bytes = 20 * kMiB}).ok());
  EXPECT_THAT(refused("b", 16 * kMiB), HasSubstr("20971520 of other tenants"));
  EXPECT_EQ(store_->SetDiskBytes(32 * kMiB).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(store_->SetQuota("", {}).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(store_->SetQuota(std::string(129, 'x'), {}).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(TenantQuotaTest, TiersTakeAnotherSizeWhileTheyRun) {
  for (int number = 0; number < 80; ++number) ASSERT_TRUE(Put("a", number).ok());
  const uint64_t before = store_->Stats().memory.bytes;
  ASSERT_TRUE(store_->SetMemoryBytes(512 << 10).ok());
  const CacheStats shrunk = store_->Stats();
  EXPECT_LT(shrunk.memory.bytes, before);
  EXPECT_LE(shrunk.memory.bytes, shrunk.memory.limit_bytes);
  EXPECT_LE(shrunk.memory.limit_bytes, uint64_t{512} << 10);
  EXPECT_EQ(Stored(0, 80), 80) << "what left is on disk or on its way there";
  ASSERT_TRUE(store_->SetMemoryBytes(4 * kMiB).ok());
  for (int number = 100; number < 300; ++number) ASSERT_TRUE(Put("a", number).ok());
  EXPECT_GT(store_->Stats().memory.objects, 150u);
  EXPECT_EQ(store_->SetMemoryBytes(128 << 10).code(), absl::StatusCode::kInvalidArgument);

  ASSERT_TRUE(store_->SetDiskBytes(32 * kMiB).ok());
  EXPECT_LT(store_->Stats().disk.limit_bytes, 32 * kMiB);
  EXPECT_EQ(store_->SetDiskBytes(kMiB).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(TenantQuotaTest, ThePinnedPartOfMemoryIsNotTakenAway) {
  for (int number = 0; number < 20; ++number) ASSERT_TRUE(Put("a", number).ok());
  for (int number = 0; number < 20; ++number) ASSERT_TRUE(store_->Pin({NumberedKey(number), 0}).ok());
  EXPECT_EQ(store_->SetMemoryBytes(512 << 10).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_GT(store_->Stats().memory.limit_bytes, uint64_t{512} << 10);
  for (int number = 0; number < 20; ++number) store_->Unpin({NumberedKey(number), 0});
}

TEST_F(TenantQuotaTest, AScrubFindsWhatIsDamagedInMemoryAndOnDisk) {
  ASSERT_TRUE(store_->SetQuota("b", {.disk_bytes = 16 * kMiB}).ok());
  for (int number = 0; number < 20; ++number) {
    ASSERT_TRUE(Put(number % 2 == 0 ? "a" : "b", number, /*durable=*/true).ok());
  }
  std::vector<BlockId> ids = store_->Ids(/*all=*/true);
  ASSERT_EQ(ids.size(), 20u);
  TieredStore::Scrubbed clean = store_->Scrub(ids);
  EXPECT_EQ(clean.corrupt, 0u);
  EXPECT_EQ(clean.bytes, 2 * 20 * NumberedValue(0, 0).size()) << "in memory and on disk";
  const uint64_t hits = store_->Stats().disk.hits;

  // The memory tier shares its value with readers: one of them breaks it.
  const BlockId in_memory{NumberedKey(3), 0};
  const auto shared = store_->Get(in_memory);
  const_cast<std::string&>(**shared)[4000] ^= 1;  // NOLINT: that is the damage
  const TieredStore::Scrubbed broken = store_->Scrub(ids);
  EXPECT_EQ(broken.corrupt, 1u);
  EXPECT_EQ(store_->Stats().memory.corrupt, 1u);
  const auto again = store_->Get(in_memory);
  ASSERT_TRUE(again.ok() && *again != nullptr) << "the disk has it still";
  EXPECT_EQ(**again, NumberedValue(3, 0));
  EXPECT_EQ(store_->Stats().disk.hits, hits + 1) << "a scrub's reads are no hits";
}

}  // namespace
}  // namespace tidepool
