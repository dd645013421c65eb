#include "cacheservice/tiers/disk_tier.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/cacheservice/rocksdb/faulty_disk.h"
#include "tests/cacheservice/tiers/disk_tier_fixture.h"
#include "tests/support/blocks.h"
#include "tests/support/paths.h"
#include "tests/support/temp_dir.h"

namespace tidepool {
namespace {

using test::FaultyFileSystem;
using testing::HasSubstr;

constexpr int kLast = 1000;  // a number that no other put has

BlockId Id(int number) { return {test::NumberedKey(number), number % 3}; }
BlockValue Value(int number) { return std::make_shared<const std::string>(test::NumberedValue(number, number % 3)); }

class DiskTierTest : public test::DiskTierFixture {
 protected:
  absl::Status Put(int number, bool durable = true) {
    const DiskPut put = {.id = Id(number), .value = Value(number)};
    return tier_->Put({&put, 1}, durable)[0];
  }
  absl::StatusOr<BlockValue> Get(int number) {
    const BlockId id = Id(number);
    return std::move(tier_->Get({&id, 1})[0]);
  }
  bool Holds(int number) {
    const auto value = Get(number);
    return value.ok() && *value != nullptr && **value == *Value(number);
  }
  // The disk fails before what was put without `durable` is in files, and works again.
  void LoseUnlogged() {
    disk_->set_writes(FaultyFileSystem::Writes::kNoBlocks);
    ASSERT_FALSE(database_->Flush().ok());
    disk_->set_writes(FaultyFileSystem::Writes::kWork);
    ASSERT_TRUE(Put(kLast).ok());
  }
  // Values of this number in the files, whatever the index says.
  int StoredAs(int number) {
    int found = 0;
    EXPECT_TRUE(database_
                    ->Scan(Family::kBlockValues, {}, {},
                           [&](std::string_view key, std::string_view) {
                             found += key.substr(8, 16) == Id(number).key.AsString() ? 1 : 0;
                             return true;
                           })
                    .ok());
    return found;
  }
  // Alters one byte of a stored value below the tier, with RocksDB's own checksum right.
  void FlipByte(int number, size_t offset) {
    std::string key, value;
    ASSERT_TRUE(database_
                    ->Scan(Family::kBlockValues, {}, {},
                           [&](std::string_view k, std::string_view v) {
                             if (k.substr(8, 16) != Id(number).key.AsString()) return true;
                             key = k;
                             value = v;
                             return true;
                           })
                    .ok());
    ASSERT_LT(offset, value.size());
    value[offset] ^= 0x10;
    const Mutation mutation = {.family = Family::kBlockValues, .key = key, .value = value};
    ASSERT_TRUE(database_->Write({&mutation, 1}, Durability::kSynced).ok());
  }
};

TEST_F(DiskTierTest, WhatWasPutIsReadBackAndCounted) {
  ASSERT_TRUE(Put(1).ok());
  ASSERT_TRUE(Put(2, /*durable=*/false).ok());
  EXPECT_TRUE(Holds(1));
  EXPECT_TRUE(Holds(2));
  EXPECT_EQ(*Get(3), nullptr);
  EXPECT_TRUE(tier_->Contains(Id(1)));
  EXPECT_FALSE(tier_->Contains(Id(3)));
  const TierStats stats = tier_->Stats();
  EXPECT_EQ(stats.puts, 2u);
  EXPECT_EQ(stats.hits, 2u);
  EXPECT_EQ(stats.misses, 1u);
  EXPECT_EQ(stats.objects, 2u);
  EXPECT_EQ(stats.bytes, 2 * DiskTier::CostBytes(Value(1)->size()));
}

TEST_F(DiskTierTest, ManyAreReadInTheOrderAsked) {
  for (int number = 0; number < 100; ++number) ASSERT_TRUE(Put(number, number % 2 == 0).ok());
  std::vector<BlockId> ids;
  for (int number = 120; number-- > 0;) ids.push_back(Id(number));
  const auto values = tier_->Get(ids);
  ASSERT_EQ(values.size(), 120u);
  for (int i = 0; i < 120; ++i) {
    ASSERT_TRUE(values[i].ok());
    const int number = 119 - i;
    ASSERT_EQ(*values[i] != nullptr, number < 100);
    if (number >= 100) continue;
    EXPECT_EQ(**values[i], *Value(number));
  }
}

TEST_F(DiskTierTest, AllThatWasPutIsThereAfterAnOrderlyClose) {
  for (int number = 0; number < 50; ++number) ASSERT_TRUE(Put(number, number % 2 == 0).ok());
  const TierStats before = tier_->Stats();
  Reopen();
  for (int number = 0; number < 50; ++number) EXPECT_TRUE(Holds(number)) << number;
  EXPECT_EQ(tier_->Stats().objects, before.objects) << "the account is that of the store";
  EXPECT_EQ(tier_->Stats().bytes, before.bytes);
  EXPECT_GT(tier_->index_memory_bytes(), 0u);
}

TEST_F(DiskTierTest, ARepeatedPutIsNotWrittenAgainUnlessItIsToBecomeDurable) {
  ASSERT_TRUE(Put(1, false).ok());
  ASSERT_TRUE(Put(1, false).ok());
  EXPECT_EQ(tier_->writes(), 1u);
  EXPECT_EQ(tier_->Stats().repeated_puts, 1u);
  ASSERT_TRUE(Put(1, true).ok());
  EXPECT_EQ(tier_->writes(), 2u);
  ASSERT_TRUE(Put(1, true).ok());
  ASSERT_TRUE(Put(1, false).ok());
  EXPECT_EQ(tier_->writes(), 2u);
  EXPECT_EQ(tier_->Stats().objects, 1u);
  EXPECT_TRUE(Holds(1));
}

TEST_F(DiskTierTest, OneCallIsOneWriteAndHasOneStatusPerPut) {
  std::vector<DiskPut> puts;
  for (int number = 0; number < 20; ++number) puts.push_back({.id = Id(number), .value = Value(number)});
  puts.push_back({.id = Id(99), .value = std::make_shared<const std::string>(kDiskBytes / 2, 'x')});
  const auto results = tier_->Put(puts, /*durable=*/true);
  ASSERT_EQ(results.size(), 21u);
  for (int number = 0; number < 20; ++number) EXPECT_TRUE(results[number].ok());
  EXPECT_EQ(results[20].code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(results[20].message()), HasSubstr("larger than a quarter of the disk tier"));
  EXPECT_EQ(tier_->writes(), 1u);
  EXPECT_EQ(tier_->Stats().write_failures, 1u);
}

TEST_F(DiskTierTest, AFlippedByteAnywhereIsAMissAndCountedOnceAndThePlaceIsFreeAgain) {
  uint64_t corrupt = 0;
  const size_t bytes = Value(0)->size();
  for (const size_t offset : {size_t{0}, size_t{6}, size_t{21}, size_t{25}, bytes / 2, bytes - 1}) {
    const int number = static_cast<int>(corrupt);
    ASSERT_TRUE(Put(number).ok());
    FlipByte(number, offset);
    ASSERT_TRUE(Get(number).ok());
    EXPECT_EQ(*Get(number), nullptr) << "byte " << offset;
    EXPECT_FALSE(tier_->Contains(Id(number)));
    EXPECT_EQ(tier_->Stats().corrupt, ++corrupt);
    ASSERT_TRUE(Put(number).ok());
    EXPECT_TRUE(Holds(number)) << "stored anew";
  }
}

TEST_F(DiskTierTest, AValueThatWasFoundDamagedStaysGoneAfterReopening) {
  ASSERT_TRUE(Put(1).ok());
  FlipByte(1, 100);
  EXPECT_EQ(*Get(1), nullptr);
  Reopen();
  EXPECT_FALSE(tier_->Contains(Id(1)));
  EXPECT_EQ(*Get(1), nullptr);
  EXPECT_EQ(tier_->Stats().corrupt, 0u);
}

TEST_F(DiskTierTest, AnotherBlocksBytesAreNeverReturned) {
  ASSERT_TRUE(Put(1).ok());
  ASSERT_TRUE(Put(2).ok());  // of another layer
  std::vector<std::pair<std::string, std::string>> stored;
  ASSERT_TRUE(database_
                  ->Scan(Family::kBlockValues, {}, {},
                         [&](std::string_view key, std::string_view value) {
                           stored.emplace_back(key, value);
                           return true;
                         })
                  .ok());
  ASSERT_EQ(stored.size(), 2u);
  const Mutation swapped[] = {{.family = Family::kBlockValues, .key = stored[0].first, .value = stored[1].second}};
  ASSERT_TRUE(database_->Write(swapped, Durability::kSynced).ok());
  EXPECT_EQ(*Get(1), nullptr);
  EXPECT_TRUE(Holds(2));
  EXPECT_EQ(tier_->Stats().corrupt, 1u);
}

TEST_F(DiskTierTest, AFlippedByteInTheFileItselfIsAMissNotAnError) {
  for (int number = 0; number < 30; ++number) ASSERT_TRUE(Put(number).ok());
  ASSERT_TRUE(database_->Flush().ok());
  Close();
  const std::string row = Value(7)->substr(Value(7)->size() - 64);
  int flipped = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dir_.File("db"))) {
    const std::string bytes = entry.is_regular_file() ? test::ReadFile(entry.path()) : "";
    const size_t at = bytes.find(row);
    if (entry.path().extension() != ".sst" || at == std::string::npos) continue;
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(at));
    file.put(static_cast<char>(row[0] ^ 1));
    ++flipped;
  }
  ASSERT_GE(flipped, 1);
  Open();
  ASSERT_TRUE(Get(7).ok()) << Get(7).status();
  EXPECT_EQ(*Get(7), nullptr);
  EXPECT_GE(tier_->Stats().corrupt, 1u);
  int held = 0;
  for (int number = 0; number < 30; ++number) held += Holds(number);
  EXPECT_GE(held, 25) << "only what shares the file's block is lost";
}

// Promise P5, for the account and for the files.
TEST_F(DiskTierTest, TheByteLimitHoldsAfterEveryPutAndTheOldestLeave) {
  const int count = static_cast<int>(3 * kDiskBytes / Value(0)->size());
  uint64_t most_used = 0;
  for (int first = 0; first < count; first += 20) {
    std::vector<DiskPut> puts;
    for (int number = first; number < first + 20; ++number) puts.push_back({.id = Id(number), .value = Value(number)});
    for (const absl::Status& status : tier_->Put(puts, /*durable=*/false)) ASSERT_TRUE(status.ok());
    const TierStats stats = tier_->Stats();
    ASSERT_LE(stats.bytes, stats.limit_bytes);
    ASSERT_EQ(stats.puts, stats.objects + stats.evictions);
    most_used = std::max(most_used, database_->UsedBytes());
  }
  EXPECT_LE(most_used, kDiskBytes);
  EXPECT_GT(tier_->Stats().evictions, 0u);
  EXPECT_EQ(*Get(0), nullptr);
  EXPECT_TRUE(Holds(count - 1));
  const uint64_t objects = tier_->Stats().objects;
  Reopen();
  EXPECT_LE(tier_->Stats().bytes, tier_->Stats().limit_bytes);
  EXPECT_EQ(tier_->Stats().objects, objects);
  EXPECT_EQ(tier_->Stats().corrupt, 0u);
  EXPECT_TRUE(Holds(count - 1));
}

TEST_F(DiskTierTest, AFullDiskRefusesByStatusAndKeepsWhatItHas) {
  ASSERT_TRUE(Put(1).ok());
  disk_->set_writes(FaultyFileSystem::Writes::kDiskFull);
  const absl::Status refused = Put(2);
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("takes no writes"));
  EXPECT_FALSE(tier_->Contains(Id(2))) << "what was not acknowledged is not promised";
  EXPECT_TRUE(Holds(1));
  EXPECT_EQ(tier_->Stats().write_failures, 1u);
  disk_->set_writes(FaultyFileSystem::Writes::kWork);
  EXPECT_EQ(Put(2), absl::OkStatus());
  Reopen();
  EXPECT_TRUE(Holds(1));
  EXPECT_TRUE(Holds(2));
}

TEST_F(DiskTierTest, WhatAFailingDiskLostIsNotThereAndIsWrittenWhenItIsPutAgain) {
  ASSERT_TRUE(Put(1).ok());
  ASSERT_TRUE(Put(2, /*durable=*/false).ok());
  LoseUnlogged();
  EXPECT_TRUE(tier_->Contains(Id(1)));
  EXPECT_FALSE(tier_->Contains(Id(2)));
  EXPECT_EQ(tier_->Stats().corrupt, 0);
  ASSERT_TRUE(Put(2, /*durable=*/false).ok());
  EXPECT_TRUE(Holds(2));
  Reopen();
  EXPECT_TRUE(Holds(1));
  EXPECT_TRUE(Holds(2));
}

TEST_F(DiskTierTest, ThePlaceOfAPutThatFailedIsNotGivenToAnother) {
  ASSERT_TRUE(database_->Flush().ok());  // else the log is given up, with what is in it, when files are opened anew
  disk_->set_writes(FaultyFileSystem::Writes::kNoSync);
  ASSERT_FALSE(Put(1).ok());  // and is in the log all the same
  disk_->set_writes(FaultyFileSystem::Writes::kWork);
  ASSERT_TRUE(Put(2, /*durable=*/false).ok());
  ASSERT_EQ(StoredAs(1), 1) << "it came back from the log";
  LoseUnlogged();
  // What came back has the place that the index has for what is lost, if there were two of one number.
  EXPECT_FALSE(tier_->Contains(Id(2)));
  EXPECT_EQ(*Get(2), nullptr);
  EXPECT_EQ(tier_->Stats().corrupt, 0u);
}

TEST_F(DiskTierTest, WhatIsLostWhileFilesAreOpenedAnewToReadItIsAMissAndNoDamage) {
  ASSERT_TRUE(Put(1).ok());
  Reopen();
  ASSERT_TRUE(Put(2, /*durable=*/false).ok());
  disk_->set_writes(FaultyFileSystem::Writes::kDiskFull);
  ASSERT_FALSE(Put(3).ok());
  disk_->set_reads_fail(true);
  disk_->set_writes(FaultyFileSystem::Writes::kWork);
  ASSERT_FALSE(Put(3).ok());  // closes the files, which cannot be opened
  disk_->set_reads_fail(false);
  const uint64_t losses = database_->losses();
  EXPECT_EQ(*Get(2), nullptr);
  EXPECT_GT(database_->losses(), losses) << "they were opened to read it";
  EXPECT_TRUE(Holds(1));
  EXPECT_EQ(tier_->Stats().corrupt, 0u);
}

TEST_F(DiskTierTest, ADiskThatCannotBeReadIsUnavailableAndNothingIsForgotten) {
  ASSERT_TRUE(Put(1).ok());
  Reopen();
  disk_->set_reads_fail(true);
  EXPECT_EQ(Get(1).status().code(), absl::StatusCode::kUnavailable);
  disk_->set_reads_fail(false);
  EXPECT_TRUE(Holds(1));
  EXPECT_EQ(tier_->Stats().corrupt, 0u);
}

TEST_F(DiskTierTest, PutsOfSeveralThreadsAreAllThereAfterReopening) {
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([this, thread] {
      for (int i = 0; i < 40; ++i) {
        const int number = thread * 20 + i;  // half of them are put by two threads
        EXPECT_TRUE(Put(number, i % 2 == 0).ok());
        EXPECT_TRUE(Holds(number));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(tier_->writes(), 160u);
  Reopen();
  for (int number = 0; number < 100; ++number) EXPECT_TRUE(Holds(number));
}

TEST_F(DiskTierTest, ATierSmallerThanItsReserveIsRefused) {
  const auto small = DiskTier::Open(database_.get(), uint64_t{1} << 20);
  EXPECT_EQ(small.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(small.status().message()), HasSubstr("disk_bytes 1048576 is below"));
}

TEST_F(DiskTierTest, EntriesThatAreNotOursAreSkippedAndAMarkThatIsNotOursIsRefused) {
  ASSERT_TRUE(Put(1).ok());
  const Mutation strange = {.family = Family::kBlockIndex, .key = "odd", .value = "bytes"};
  ASSERT_TRUE(database_->Write({&strange, 1}, Durability::kSynced).ok());
  Reopen();
  EXPECT_TRUE(Holds(1));
  const Mutation mark = {.family = Family::kMeta, .key = "blocks.first_sequence", .value = "odd"};
  ASSERT_TRUE(database_->Write({&mark, 1}, Durability::kSynced).ok());
  EXPECT_EQ(DiskTier::Open(database_.get(), kDiskBytes).status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace tidepool
