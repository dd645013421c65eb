// Values that nobody uses leave the disk, on a clock that the tests move.
#include "cacheservice/tiers/disk_expiry.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "cacheservice/rocksdb/database.h"
#include "cacheservice/tiers/disk_records.h"
#include "cacheservice/tiers/disk_tier.h"
#include "cacheservice/tiers/tiered_store.h"
#include "tests/cacheservice/rocksdb/faulty_disk.h"
#include "tests/cacheservice/tiers/disk_tier_fixture.h"
#include "tests/support/blocks.h"
#include "tests/support/eventually.h"
#include "tests/support/temp_dir.h"

namespace tidepool {
namespace {

using test::FaultyFileSystem;

constexpr absl::Duration kTtl = absl::Hours(24);
constexpr absl::Duration kMoment = absl::Seconds(1);

BlockId Id(int number) { return {test::NumberedKey(number), number % 3}; }
std::string Value(int number) { return test::NumberedValue(number, number % 3); }

class DiskTierExpiryTest : public test::DiskTierFixture {
 protected:
  absl::Status Put(int number, bool durable = true) {
    const DiskPut put = {.id = Id(number), .value = std::make_shared<const std::string>(Value(number))};
    return tier_->Put({&put, 1}, durable)[0];
  }
  bool Read(int number) {
    const BlockId id = Id(number);
    const absl::StatusOr<BlockValue> value = std::move(tier_->Get({&id, 1})[0]);
    return value.ok() && *value != nullptr && **value == Value(number);
  }
  bool Holds(int number) { return tier_->Contains(Id(number)); }
  void Expire() {
    while (tier_->ExpireSome(kTtl, [this](const BlockId& id, absl::Time) { return in_use_.contains(id); })) {
    }
  }

  absl::flat_hash_set<BlockId> in_use_;
};

TEST_F(DiskTierExpiryTest, WhatNobodyUsesLeavesWhenItsTimeIsOver) {
  ASSERT_TRUE(Put(1).ok());
  ASSERT_TRUE(Put(2, /*durable=*/false).ok());
  clock_.Advance(kTtl - kMoment);
  ASSERT_TRUE(Put(3).ok());
  Expire();
  EXPECT_EQ(tier_->Stats().objects, 3u) << "not yet";
  clock_.Advance(kMoment);
  Expire();
  EXPECT_FALSE(Holds(1));
  EXPECT_FALSE(Holds(2));
  EXPECT_TRUE(Read(3));
  const TierStats stats = tier_->Stats();
  EXPECT_EQ(stats.expired, 2u);
  EXPECT_EQ(stats.renewed, 0u);
  EXPECT_EQ(stats.evictions, 0u);
  EXPECT_EQ(stats.bytes, DiskTier::CostBytes(Value(3).size()));
  Reopen();
  EXPECT_FALSE(Holds(1)) << "the files may have it, and it does not come back";
  EXPECT_FALSE(Holds(2));
  EXPECT_TRUE(Read(3));
}

TEST_F(DiskTierExpiryTest, FilesGoWithTheirValues) {
  for (int number = 0; number < 600; ++number) ASSERT_TRUE(Put(number, /*durable=*/false).ok());
  ASSERT_TRUE(database_->Flush().ok());
  const uint64_t before = database_->UsedBytes();
  clock_.Advance(kTtl);
  Expire();
  EXPECT_EQ(tier_->Stats().bytes, 0u);
  EXPECT_EQ(tier_->Stats().expired, 600u);
  // Files that RocksDB was just merging are not given up; they go with the next values.
  EXPECT_TRUE(test::Eventually([&] {
    if (database_->UsedBytes() < before / 4) return true;
    EXPECT_TRUE(Put(600, /*durable=*/false).ok());
    clock_.Advance(kTtl);
    Expire();
    return false;
  })) << database_->UsedBytes()
      << " of " << before;
  ASSERT_TRUE(Put(1).ok());
  EXPECT_TRUE(Read(1));
}

TEST_F(DiskTierExpiryTest, WhatIsReadOrPutAgainStaysUntilItIsNotUsedForSoLong) {
  for (const int number : {1, 2, 3, 4}) ASSERT_TRUE(Put(number).ok());
  clock_.Advance(kTtl / 2);
  EXPECT_TRUE(Read(2));
  ASSERT_TRUE(Put(3).ok());
  EXPECT_TRUE(tier_->Repeats(Id(4))) << "memory gives it up, and the disk has it";
  clock_.Advance(kTtl / 2);
  Expire();
  EXPECT_FALSE(Holds(1));
  for (const int number : {2, 3, 4}) EXPECT_TRUE(Holds(number)) << number;
  EXPECT_EQ(tier_->Stats().expired, 1u);
  EXPECT_EQ(tier_->Stats().renewed, 3u);
  EXPECT_EQ(tier_->Stats().bytes, 3 * DiskTier::CostBytes(Value(1).size())) << "the old bytes are gone";
  Expire();
  EXPECT_EQ(tier_->Stats().renewed, 3u) << "once, not at each look";
  clock_.Advance(kTtl);
  Expire();
  EXPECT_EQ(tier_->Stats().objects, 0u);
  EXPECT_EQ(tier_->Stats().expired, 4u);
}

TEST_F(DiskTierExpiryTest, WhatWaitsBehindAUsedValueLeavesAllTheSame) {
  for (int number = 0; number < 50; ++number) ASSERT_TRUE(Put(number).ok());
  clock_.Advance(kTtl);
  EXPECT_TRUE(Read(0));
  Expire();
  EXPECT_EQ(tier_->Stats().objects, 1u);
  EXPECT_EQ(tier_->Stats().expired, 49u);
  EXPECT_TRUE(Read(0));
  EXPECT_EQ(tier_->Stats().bytes, DiskTier::CostBytes(Value(0).size()));
}

TEST_F(DiskTierExpiryTest, WhenItWasWrittenOutlivesARestartAndWhenItWasReadDoesNot) {
  ASSERT_TRUE(Put(1).ok());
  clock_.Advance(kTtl / 2);
  ASSERT_TRUE(Put(2).ok());
  EXPECT_TRUE(Read(1));
  Reopen();
  clock_.Advance(kTtl / 2);
  Expire();
  EXPECT_FALSE(Holds(1));
  EXPECT_TRUE(Holds(2));
  EXPECT_EQ(tier_->Stats().renewed, 0u);
}

TEST_F(DiskTierExpiryTest, WhatIsUsedWithoutTheDiskIsStoredAnew) {
  for (const int number : {1, 2, 3}) ASSERT_TRUE(Put(number).ok());
  in_use_ = {Id(1)};
  const BlockKey keys[] = {test::NumberedKey(3), test::NumberedKey(99)};  // of layer 0, and not there
  tier_->Use(keys, clock_.Now() + kTtl / 2);
  clock_.Advance(kTtl);
  Expire();
  EXPECT_TRUE(Read(1));
  EXPECT_FALSE(Holds(2));
  EXPECT_TRUE(Read(3));
}

TEST_F(DiskTierExpiryTest, WhatIsStoredAnewIsAsDurableAsItWas) {
  ASSERT_TRUE(Put(1).ok());
  ASSERT_TRUE(Put(2, /*durable=*/false).ok());
  in_use_ = {Id(1), Id(2)};
  clock_.Advance(kTtl);
  Expire();
  EXPECT_EQ(tier_->Stats().renewed, 2u);
  // The disk fails before what is not durable is in files again.
  disk_->set_writes(FaultyFileSystem::Writes::kNoBlocks);
  ASSERT_FALSE(database_->Flush().ok());
  disk_->set_writes(FaultyFileSystem::Writes::kWork);
  ASSERT_TRUE(Put(3).ok());
  EXPECT_TRUE(Read(1));
  EXPECT_FALSE(Holds(2));
  EXPECT_EQ(tier_->Stats().corrupt, 0u);
  Reopen();
  EXPECT_TRUE(Read(1));
}

TEST_F(DiskTierExpiryTest, ADiskThatFailsKeepsWhatIsUsed) {
  for (const int number : {1, 2}) ASSERT_TRUE(Put(number).ok());
  in_use_ = {Id(1)};
  clock_.Advance(kTtl);
  disk_->set_writes(FaultyFileSystem::Writes::kDiskFull);
  Expire();
  EXPECT_TRUE(Read(1));
  EXPECT_FALSE(Holds(2));
  EXPECT_EQ(tier_->Stats().renewed, 0u);
  disk_->set_writes(FaultyFileSystem::Writes::kWork);
  Expire();
  EXPECT_TRUE(Read(1));
  EXPECT_EQ(tier_->Stats().renewed, 1u);
}

TEST_F(DiskTierExpiryTest, AnEntryWithoutATimeCountsFromTheStart) {
  ASSERT_TRUE(Put(1).ok());
  const std::string index_key = SequenceKey(2), value_key = ValueKey(2, Id(2)), value = Value(2);
  std::string entry = IndexEntry({.id = Id(2), .value_bytes = static_cast<uint32_t>(value.size())});
  entry.resize(entry.size() - 4);                         // the time
  entry.back() = static_cast<char>(entry.back() & 0x7f);  // that it follows
  const Mutation mutations[] = {{.family = Family::kBlockIndex, .key = index_key, .value = entry},
                                {.family = Family::kBlockValues, .key = value_key, .value = value}};
  ASSERT_TRUE(database_->Write(mutations, Durability::kSynced).ok());
  clock_.Advance(kTtl - kMoment);
  Reopen();
  clock_.Advance(kMoment);
  Expire();
  EXPECT_FALSE(Holds(1));
  EXPECT_TRUE(Read(2));
}

class StoreExpiryTest : public testing::Test {
 protected:
  explicit StoreExpiryTest(absl::Duration ttl = kTtl) {
    DatabaseOptions database;
    database.data_dir = dir_.path();
    database_ = *Database::Open(database);
    CacheOptions options;
    options.data_dir = dir_.path();
    options.memory_bytes = uint64_t{1} << 20;
    options.disk_bytes = uint64_t{64} << 20;
    options.disk_ttl = ttl;
    store_ = *TieredStore::Open(options, database_.get(), [this] { return clock_.Now(); });
  }
  void Put(int number, const std::string& tenant = "") {
    std::vector<BlockPut> puts(1);
    puts[0] = {.id = Id(number), .value = Value(number), .durable = true, .tenant = tenant};
    ASSERT_TRUE(store_->PutMany(std::move(puts))[0].ok());
  }

  const test::TempDir dir_;
  test::MovedClock clock_;
  std::unique_ptr<Database> database_;
  std::unique_ptr<TieredStore> store_;
};

TEST_F(StoreExpiryTest, WhatIsReadFromMemoryOrPinnedThereStaysOnDisk) {
  for (const int number : {1, 2, 3}) Put(number);
  ASSERT_TRUE(store_->Pin(Id(2)).ok());
  clock_.Advance(kTtl);
  ASSERT_NE(*store_->Get(Id(1)), nullptr);
  EXPECT_EQ(store_->Stats().disk.hits, 0u) << "memory has it";
  store_->ExpireUnused();
  EXPECT_EQ(store_->Stats().disk.objects, 2u);
  EXPECT_EQ(store_->Stats().disk.expired, 1u);
  EXPECT_EQ(store_->Stats().disk.renewed, 2u);
  clock_.Advance(kTtl);
  store_->ExpireUnused();
  EXPECT_EQ(store_->Stats().disk.objects, 1u) << "what is pinned";
  store_->Unpin(Id(2));
  clock_.Advance(kTtl);
  store_->ExpireUnused();
  EXPECT_EQ(store_->Stats().disk.objects, 0u);
  EXPECT_TRUE(store_->Contains(Id(1))) << "it is the disk that they leave";
}

TEST_F(StoreExpiryTest, WhyItIsGoneIsRemembered) {
  for (int number = 0; number < 400; ++number) Put(number);  // more than memory holds
  ASSERT_FALSE(store_->Stats().memory.objects >= 400);
  clock_.Advance(kTtl);
  store_->ExpireUnused();
  bool asked = false;
  std::vector<BlockKey> keys;
  for (int number = 0; number < 400; ++number) keys.push_back(test::NumberedKey(number));
  int unused = 0;
  for (const BlockPlace& place : store_->Places(keys, /*layers=*/1, absl::InfiniteFuture(), &asked)) {
    unused += place.missing_layers == 1 && place.departure.reason == Departure::Reason::kUnused ? 1 : 0;
  }
  EXPECT_GT(unused, 100);
}

TEST_F(StoreExpiryTest, ATenantsOwnDiskIsLookedThroughToo) {
  ASSERT_TRUE(store_->SetQuota("acme", {.disk_bytes = uint64_t{16} << 20}).ok());
  Put(1, "acme");
  Put(2, "other");
  EXPECT_EQ(store_->Stats().disk.objects, 2u);
  clock_.Advance(kTtl);
  store_->ExpireUnused();
  EXPECT_EQ(store_->Stats().disk.objects, 0u);
  EXPECT_EQ(store_->Stats().disk.expired, 2u);
}

class NoExpiryTest : public StoreExpiryTest {
 protected:
  NoExpiryTest() : StoreExpiryTest(absl::ZeroDuration()) {}
};

TEST_F(NoExpiryTest, WithoutATimeNothingLeaves) {
  Put(1);
  clock_.Advance(100 * kTtl);
  store_->ExpireUnused();
  EXPECT_EQ(store_->Stats().disk.objects, 1u);
}

class BySelfExpiryTest : public StoreExpiryTest {
 protected:
  BySelfExpiryTest() : StoreExpiryTest(absl::Seconds(1)) {}  // looks are a sixty-fourth of it apart
};

TEST_F(BySelfExpiryTest, NobodyHasToAskForIt) {
  Put(1);
  EXPECT_EQ(store_->Stats().disk.objects, 1u) << "on the clock no time has passed";
  clock_.Advance(absl::Seconds(2));
  EXPECT_TRUE(test::Eventually([this] { return store_->Stats().disk.objects == 0; }));
}

}  // namespace
}  // namespace tidepool
