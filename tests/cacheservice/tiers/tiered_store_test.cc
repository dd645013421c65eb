#include "cacheservice/tiers/tiered_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "base/checksum.h"
#include "cacheservice/rocksdb/database.h"
#include "policies/kv/block_codec.h"
#include "tests/cacheservice/rocksdb/faulty_disk.h"
#include "tests/support/blocks.h"
#include "tests/support/temp_dir.h"

namespace tidepool {
namespace {

using test::FaultyFileSystem;
using test::NumberedKey;
using test::NumberedValue;
using testing::ElementsAre;
using testing::HasSubstr;

// Values of NumberedValue are 8.7 KB: memory holds about 14 of them, the demotion queue as many.
constexpr uint64_t kMemoryBytes = uint64_t{256} << 10;
constexpr int kMoreThanMemory = 60;

BlockId Id(int number) { return {NumberedKey(number), number % 3}; }
std::string Value(int number) { return NumberedValue(number, number % 3); }

class TieredStoreTest : public testing::Test {
 protected:
  TieredStoreTest() { Open(); }
  void Open() {
    DatabaseOptions database;
    database.data_dir = dir_.path();
    database.write_buffer_bytes = uint64_t{256} << 10;
    database.resume_interval = absl::ZeroDuration();
    database.env = disk_.env();
    database_ = *Database::Open(database);
    CacheOptions options;
    options.data_dir = dir_.path();
    options.memory_bytes = kMemoryBytes;
    options.disk_bytes = uint64_t{16} << 20;
    store_ = *TieredStore::Open(options, database_.get());
  }
  void Reopen() {
    store_.reset();
    database_.reset();
    Open();
  }
  absl::StatusOr<Tier> Put(int number, bool durable = false) { return store_->Put(Id(number), Value(number), durable); }
  void Fill(int first, int count) {
    for (int number = first; number < first + count; ++number) ASSERT_TRUE(Put(number).ok());
  }
  // The value as it was put, a miss, or the test fails.
  bool Holds(int number) {
    const auto value = store_->Get(Id(number));
    EXPECT_TRUE(value.ok()) << value.status();
    if (!value.ok() || *value == nullptr) return false;
    EXPECT_EQ(**value, Value(number));
    return true;
  }
  uint64_t BytesInMemory() const { return store_->Stats().memory.bytes + store_->Stats().demotion_queue_bytes; }

  const test::TempDir dir_;
  const test::FaultyDisk disk_;
  std::unique_ptr<Database> database_;
  std::unique_ptr<TieredStore> store_;
};

TEST_F(TieredStoreTest, TheTierThatIsAcknowledgedHoldsTheValue) {
  EXPECT_EQ(*Put(1, /*durable=*/false), Tier::kMemory);
  EXPECT_EQ(store_->Stats().memory.objects, 1u);
  EXPECT_EQ(store_->Stats().disk.objects, 0u);
  EXPECT_EQ(*Put(2, /*durable=*/true), Tier::kDisk);
  EXPECT_EQ(store_->Stats().disk.objects, 1u);
  EXPECT_EQ(*Put(1, /*durable=*/true), Tier::kDisk) << "asked again for more";
  EXPECT_EQ(store_->Stats().disk.objects, 2u);
  EXPECT_EQ(*Put(2, /*durable=*/false), Tier::kMemory);
}

TEST_F(TieredStoreTest, WhatMemoryHasNoRoomForGoesToDiskInTheBackgroundAndIsFoundAllTheWay) {
  for (int number = 0; number < kMoreThanMemory; ++number) {
    ASSERT_TRUE(Put(number).ok());
    for (int earlier = 0; earlier <= number; earlier += 7) ASSERT_TRUE(store_->Contains(Id(earlier))) << earlier;
    ASSERT_LE(BytesInMemory(), kMemoryBytes + Value(0).size()) << "one object in flight";
  }
  for (int number = 0; number < kMoreThanMemory; ++number) EXPECT_TRUE(Holds(number)) << number;
  ASSERT_TRUE(store_->Drain().ok());
  const CacheStats stats = store_->Stats();
  EXPECT_GT(stats.memory.evictions, 0u);
  EXPECT_GT(stats.demotions, 0u);
  EXPECT_GT(stats.disk.objects, 0u);
  EXPECT_EQ(stats.dropped, 0u);
  EXPECT_EQ(stats.demotion_queue_bytes, 0u);
  EXPECT_EQ(stats.disk.objects, static_cast<uint64_t>(kMoreThanMemory)) << "drained: all are on disk";
}

TEST_F(TieredStoreTest, AReadFromDiskIsCountedThereAndPromoted) {
  ASSERT_TRUE(Put(1, /*durable=*/true).ok());
  Reopen();
  EXPECT_TRUE(Holds(1));
  CacheStats stats = store_->Stats();
  EXPECT_EQ(stats.memory.misses, 1u);
  EXPECT_EQ(stats.disk.hits, 1u);
  EXPECT_EQ(stats.promotions, 1u);
  EXPECT_TRUE(Holds(1));
  stats = store_->Stats();
  EXPECT_EQ(stats.memory.hits, 1u);
  EXPECT_EQ(stats.disk.hits, 1u);
  EXPECT_FALSE(Holds(2));
  stats = store_->Stats();
  EXPECT_EQ(stats.memory.misses, 2u);
  EXPECT_EQ(stats.disk.misses, 1u);
}

TEST_F(TieredStoreTest, ManyAreReadInTheOrderAskedWithMissesAsNull) {
  Fill(0, kMoreThanMemory);
  std::vector<BlockId> ids;
  for (int number = kMoreThanMemory + 5; number-- > 0;) ids.push_back(Id(number));
  const auto values = store_->GetMany(ids);
  ASSERT_TRUE(values.ok());
  for (size_t i = 0; i < ids.size(); ++i) {
    const int number = kMoreThanMemory + 4 - static_cast<int>(i);
    ASSERT_EQ((*values)[i] != nullptr, number < kMoreThanMemory) << number;
    if ((*values)[i] != nullptr) {
      EXPECT_EQ(*(*values)[i], Value(number)) << number;
    }
  }
}

TEST_F(TieredStoreTest, WhatWasAcknowledgedOutlivesAShutdownWithDemotionsQueued) {
  Fill(0, kMoreThanMemory);
  ASSERT_TRUE(Put(kMoreThanMemory, /*durable=*/true).ok());
  const CacheStats before = store_->Stats();
  ASSERT_GT(before.memory.evictions, 0u);
  Reopen();  // no Drain: memory is lost, nothing that had left it is
  EXPECT_TRUE(Holds(kMoreThanMemory));
  int held = 0;
  for (int number = 0; number < kMoreThanMemory; ++number) held += Holds(number);
  EXPECT_GE(static_cast<uint64_t>(held), before.memory.evictions);
}

TEST_F(TieredStoreTest, AfterADrainEverythingIsThereInTheNextProcess) {
  Fill(0, kMoreThanMemory);
  ASSERT_EQ(store_->Drain(), absl::OkStatus());
  Reopen();
  for (int number = 0; number < kMoreThanMemory; ++number) EXPECT_TRUE(Holds(number)) << number;
}

TEST_F(TieredStoreTest, ADrainThatMakesRoomOnTheDiskIsNoFailure) {
  Fill(0, 2500);  // more than the disk holds
  ASSERT_TRUE(store_->Drain().ok());
  int oldest = 0;
  while (!store_->Contains(Id(oldest))) ++oldest;
  ASSERT_GT(oldest, 0);
  ASSERT_TRUE(Holds(oldest));
  ASSERT_EQ(store_->Stats().promotions, 1u);
  Fill(3000, 3);
  EXPECT_TRUE(store_->Drain().ok()) << "the oldest left the disk, and is in memory";
}

TEST_F(TieredStoreTest, AGatherTakesRowsFromBothTiersInOrderAndNamesWhatIsMissing) {
  Fill(0, kMoreThanMemory);  // the first are on disk, the last in memory
  std::vector<RowSelection> selections;
  for (const int number : {kMoreThanMemory - 1, 0, 999, 3, kMoreThanMemory - 2, 0}) {
    selections.push_back({Id(number), number % 2, 0x8000000000000021u});
  }
  const auto rows = store_->GatherRows(selections);
  ASSERT_TRUE(rows.ok()) << rows.status();
  const uint64_t all = 0x8000000000000021u;
  EXPECT_THAT(rows->found, ElementsAre(all, all, 0u, all, all, all));
  std::string expected;
  for (const int number : {kMoreThanMemory - 1, 0, 3, kMoreThanMemory - 2, 0}) {
    const std::string value = Value(number);
    const BlockView view = *BlockView::Parse(value);
    for (const int token : {0, 5, 63}) expected += view.Row(number % 2, token);
  }
  EXPECT_EQ(rows->rows, expected);
  const size_t row_bytes = test::SmallLayout().row_bytes();
  ASSERT_EQ(rows->row_checksums.size(), expected.size() / row_bytes);
  for (size_t i = 0; i < rows->row_checksums.size(); ++i) {
    EXPECT_EQ(rows->row_checksums[i], Checksum32(std::string_view(expected).substr(i * row_bytes, row_bytes)));
  }
  const CacheStats stats = store_->Stats();
  EXPECT_EQ(stats.recalled_rows, 15u);
  EXPECT_EQ(stats.recalled_bytes, expected.size());
  EXPECT_EQ(stats.missing_rows, 3u);
}

TEST_F(TieredStoreTest, AGatherPastItsDeadlineStillGivesWhatMemoryHas) {
  ASSERT_TRUE(Put(1, /*durable=*/true).ok());
  Reopen();
  ASSERT_TRUE(Put(2).ok());
  const std::vector<RowSelection> selections = {{Id(1), 0, 1}, {Id(2), 0, 1}};
  const auto rows = store_->GatherRows(selections, absl::InfinitePast());
  ASSERT_TRUE(rows.ok());
  EXPECT_THAT(rows->found, ElementsAre(0u, 1u));
  EXPECT_EQ(store_->GatherRows({&selections[0], 1}, absl::InfinitePast()).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  const auto values = store_->GetMany(std::vector<BlockId>{Id(1), Id(2)}, absl::InfinitePast());
  ASSERT_TRUE(values.ok());
  EXPECT_EQ((*values)[0], nullptr);
  EXPECT_NE((*values)[1], nullptr);
}

TEST_F(TieredStoreTest, AGatherOfAKvHeadOutsideTheBlockIsRefused) {
  ASSERT_TRUE(Put(1).ok());
  const std::vector<RowSelection> selections = {{Id(1), 2, 1}};
  EXPECT_EQ(store_->GatherRows(selections).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(TieredStoreTest, AGatherOfNothingFindsNothing) {
  const auto rows = store_->GatherRows({});
  ASSERT_TRUE(rows.ok());
  EXPECT_TRUE(rows->rows.empty());
  const std::vector<RowSelection> missing = {{Id(1), 0, ~uint64_t{0}}};
  const auto none = store_->GatherRows(missing);
  ASSERT_TRUE(none.ok()) << "a miss is no error";
  EXPECT_THAT(none->found, ElementsAre(0u));
  EXPECT_EQ(store_->Stats().missing_rows, 64u);
}

TEST_F(TieredStoreTest, AProducersMistakeIsRefusedAndNothingIsStored) {
  EXPECT_EQ(store_->Put({NumberedKey(1), 0}, NumberedValue(1, 1), false).status().code(),
            absl::StatusCode::kInvalidArgument)
      << "of another layer";
  EXPECT_EQ(store_->Put({NumberedKey(1), 0}, "no block", false).status().code(), absl::StatusCode::kDataLoss);
  std::string damaged = NumberedValue(1, 0);
  damaged.back() ^= 1;
  EXPECT_EQ(store_->Put({NumberedKey(1), 0}, damaged, true).status().code(), absl::StatusCode::kDataLoss);
  const absl::Status large = store_->Put({NumberedKey(1), 0}, std::string(kMaxBlockValueBytes + 1, 'x'), true).status();
  EXPECT_EQ(large.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(large.message()), HasSubstr("larger than 8388608"));
  EXPECT_FALSE(store_->Contains({NumberedKey(1), 0}));
  EXPECT_EQ(store_->Stats().memory.objects + store_->Stats().disk.objects, 0u);
}

TEST_F(TieredStoreTest, OneBadPutAmongManyDoesNotStopTheOthers) {
  std::vector<BlockPut> puts;
  for (int number = 0; number < 6; ++number) {
    puts.push_back({.id = Id(number), .value = number == 3 ? "bad" : Value(number), .durable = number % 2 == 0});
  }
  const auto results = store_->PutMany(std::move(puts));
  for (int number = 0; number < 6; ++number) {
    if (number == 3) {
      EXPECT_EQ(results[number].status().code(), absl::StatusCode::kDataLoss);
    } else {
      EXPECT_EQ(*results[number], number % 2 == 0 ? Tier::kDisk : Tier::kMemory);
    }
  }
}

TEST_F(TieredStoreTest, AValueTooLargeForMemoryGoesStraightToDisk) {
  KvLayout wide = test::SmallLayout();
  wide.head_dim = 1024;  // 524 KB a block
  std::string value = BlockBuilder(wide, 0, 0, kBlockTokens).Finish();
  const BlockId id = {NumberedKey(1), 0};
  EXPECT_EQ(*store_->Put(id, value, /*durable=*/false), Tier::kDisk);
  EXPECT_EQ(store_->Stats().memory.objects, 0u);
  EXPECT_EQ(**store_->Get(id), value);
}

TEST_F(TieredStoreTest, WhatNeedsNoDiskIsPutAtOnceAndTheRestIsLeftAsItIs) {
  BlockPut put = {.id = Id(1), .value = Value(1)};
  EXPECT_EQ(**store_->PutAtOnce(&put), Tier::kMemory);
  EXPECT_TRUE(Holds(1));
  put = {.id = Id(2), .value = Value(2), .durable = true};
  EXPECT_FALSE(store_->PutAtOnce(&put).has_value());
  EXPECT_EQ(put.value, Value(2));
  KvLayout wide = test::SmallLayout();
  wide.head_dim = 1024;  // larger than memory
  const std::string value = BlockBuilder(wide, 0, 0, kBlockTokens).Finish();
  put = {.id = {NumberedKey(3), 0}, .value = value};
  EXPECT_FALSE(store_->PutAtOnce(&put).has_value());
  EXPECT_EQ(put.value, value);
  put = {.id = Id(4), .value = "bad"};
  EXPECT_TRUE(absl::IsDataLoss(store_->PutAtOnce(&put)->status()));
  EXPECT_EQ(store_->Stats().memory.objects, 1u);
  EXPECT_EQ(store_->Stats().disk.objects, 0u);
}

TEST_F(TieredStoreTest, WhatIsInMemoryIsReadAtOnceAndTheRestIsLeftToGet) {
  ASSERT_EQ(*Put(0, /*durable=*/true), Tier::kDisk);
  Fill(1, kMoreThanMemory);  // 0 leaves memory
  ASSERT_TRUE(store_->Drain().ok());
  EXPECT_EQ(*store_->GetAtOnce(Id(kMoreThanMemory)), Value(kMoreThanMemory));
  const CacheStats before = store_->Stats();
  EXPECT_EQ(store_->GetAtOnce(Id(0)), nullptr);
  EXPECT_EQ(store_->GetAtOnce(Id(12345)), nullptr);
  EXPECT_EQ(store_->Stats().memory.misses, before.memory.misses) << "Get counts them";
  EXPECT_TRUE(Holds(0));
}

TEST_F(TieredStoreTest, WhatWasReadFromDiskIsNotWrittenThereAgain) {
  ASSERT_EQ(*Put(0, /*durable=*/true), Tier::kDisk);
  Fill(1, kMoreThanMemory);  // 0 leaves memory
  ASSERT_TRUE(store_->Drain().ok());
  const CacheStats stats = store_->Stats();
  EXPECT_EQ(stats.disk.puts, stats.disk.objects);
  EXPECT_GE(stats.disk.repeated_puts, 1u);
  EXPECT_TRUE(Holds(0));
}

TEST_F(TieredStoreTest, APrefixIsAsLongAsAllLayersOfItsBlocksAreStoredInAnyTier) {
  for (int number = 0; number < 20; ++number) {
    for (int layer = 0; layer < 3; ++layer) {
      if (number == 15 && layer == 2) continue;
      ASSERT_TRUE(store_->Put({NumberedKey(number), layer}, NumberedValue(number, layer), number % 4 == 0).ok());
    }
  }
  std::vector<BlockKey> chain;
  for (int number = 0; number < 25; ++number) chain.push_back(NumberedKey(number));
  EXPECT_EQ(store_->LookupPrefix(chain, 3).blocks, 15);
  EXPECT_EQ(store_->LookupPrefix(chain, 2).blocks, 20);
  EXPECT_EQ(store_->LookupPrefix({}, 3).blocks, 0);
  EXPECT_EQ(store_->LookupPrefix(std::vector<BlockKey>{NumberedKey(99), NumberedKey(0)}, 3).blocks, 0);
}

// Promise P8.
TEST_F(TieredStoreTest, APinnedBlockStaysInMemoryUntilItsLeaseEnds) {
  ASSERT_TRUE(Put(0).ok());
  {
    auto lease = BlockLease::Take(store_.get(), Id(0));
    ASSERT_TRUE(lease.ok());
    auto second = BlockLease::Take(store_.get(), Id(0));
    ASSERT_TRUE(second.ok());
    BlockLease moved = *std::move(second);
    EXPECT_EQ(store_->Stats().pinned_objects, 1u);
    Fill(1, kMoreThanMemory);
    const uint64_t hits = store_->Stats().memory.hits;
    EXPECT_TRUE(Holds(0));
    EXPECT_EQ(store_->Stats().memory.hits, hits + 1);
  }
  EXPECT_EQ(store_->Stats().pinned_objects, 0u);
  EXPECT_EQ(store_->Stats().pinned_bytes, 0u);
  EXPECT_EQ(store_->Pin(Id(999)).code(), absl::StatusCode::kNotFound);
}

TEST_F(TieredStoreTest, ABlockOnDiskIsBroughtUpToBePinnedAndTooManyPinsAreRefused) {
  Fill(0, kMoreThanMemory);
  ASSERT_TRUE(store_->Drain().ok());
  int pinned = 0;
  absl::Status status;
  for (int number = 0; number < kMoreThanMemory && status.ok(); ++number) {
    status = store_->Pin(Id(number));
    pinned += status.ok();
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("half of the memory tier"));
  EXPECT_GT(pinned, 1);
  EXPECT_LE(store_->Stats().pinned_bytes, store_->Stats().memory.limit_bytes / 2);
  for (int number = 0; number < pinned; ++number) store_->Unpin(Id(number));
  EXPECT_EQ(store_->Stats().pinned_bytes, 0u);
}

TEST_F(TieredStoreTest, DurableAndPinnedBlocksAreThoseThatSomebodyReliesOn) {
  ASSERT_TRUE(Put(1).ok());
  ASSERT_TRUE(Put(2, /*durable=*/true).ok());
  ASSERT_TRUE(Put(3).ok());
  ASSERT_TRUE(Put(4, /*durable=*/true).ok());
  ASSERT_TRUE(store_->Pin(Id(3)).ok());
  ASSERT_TRUE(store_->Pin(Id(4)).ok());
  EXPECT_THAT(store_->Ids(/*all=*/false), testing::UnorderedElementsAre(Id(2), Id(3), Id(4)));
  EXPECT_THAT(store_->Ids(/*all=*/true), testing::UnorderedElementsAre(Id(1), Id(2), Id(3), Id(4)));
  store_->Unpin(Id(3));
  EXPECT_THAT(store_->Ids(/*all=*/false), testing::UnorderedElementsAre(Id(2), Id(4)));
}

TEST_F(TieredStoreTest, AFullDiskRefusesDurablePutsAndDropsDemotionsAndServesWhatItHas) {
  ASSERT_TRUE(Put(0, /*durable=*/true).ok());
  disk_->set_writes(FaultyFileSystem::Writes::kDiskFull);
  const absl::Status refused = Put(1000, /*durable=*/true).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_FALSE(store_->Contains(Id(1000))) << "nothing was stored";
  EXPECT_FALSE(store_->Stats().disk_writable);
  Fill(1, 5);  // memory still takes what is not durable
  EXPECT_TRUE(Holds(0));
  for (int number = 1; number <= 5; ++number) EXPECT_TRUE(Holds(number));
  Fill(6, kMoreThanMemory);
  EXPECT_FALSE(store_->Drain().ok());
  EXPECT_GT(store_->Stats().dropped, 0u);
  EXPECT_EQ(store_->Stats().demotion_queue_bytes, 0u);
  disk_->set_writes(FaultyFileSystem::Writes::kWork);
  EXPECT_EQ(*Put(1000, /*durable=*/true), Tier::kDisk);
  EXPECT_TRUE(store_->Stats().disk_writable);
  EXPECT_EQ(store_->Drain(), absl::OkStatus());
}

TEST_F(TieredStoreTest, AnUnreadableDiskIsUnavailableOnlyWhereMemoryDoesNotHelp) {
  ASSERT_TRUE(Put(1, /*durable=*/true).ok());
  Reopen();
  ASSERT_TRUE(Put(2).ok());
  disk_->set_reads_fail(true);
  EXPECT_EQ(store_->Get(Id(1)).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(Holds(2));
  const std::vector<RowSelection> both = {{Id(1), 0, 1}, {Id(2), 0, 1}};
  EXPECT_EQ(store_->GatherRows({&both[0], 1}).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(store_->GatherRows(both)->found, ElementsAre(0u, 1u));
  disk_->set_reads_fail(false);
  EXPECT_TRUE(Holds(1));
}

TEST_F(TieredStoreTest, OptionsOutOfRangeAreRefused) {
  CacheOptions options;
  options.data_dir = dir_.path();
  options.disk_bytes = 1;
  EXPECT_EQ(TieredStore::Open(options, database_.get()).status().code(), absl::StatusCode::kInvalidArgument);
}

// Against a map: whatever the order of operations and reopenings, a read gives the bytes that were put or, only where
// the store may forget, a miss.
TEST_F(TieredStoreTest, RandomSequencesAgreeWithAMap) {
  constexpr int kIds = 80;
  for (unsigned seed = 0; seed < 4; ++seed) {
    std::mt19937 random(seed);
    std::map<int, bool> model;  // number -> survives an end without Drain
    const int base = static_cast<int>(seed) * kIds;
    for (int step = 0; step < 600; ++step) {
      const int number = base + static_cast<int>(random() % kIds);
      switch (random() % 12) {
        case 0:
        case 1:
        case 2:
        case 3: {
          const bool durable = random() % 3 == 0;
          const auto tier = Put(number, durable);
          ASSERT_TRUE(tier.ok()) << tier.status();
          ASSERT_TRUE(!durable || *tier == Tier::kDisk);
          model[number] = model[number] || durable;
          break;
        }
        case 4: {
          std::vector<RowSelection> selections;
          std::vector<uint64_t> expected;
          for (int i = 0; i < 10; ++i) {
            const int one = base + static_cast<int>(random() % kIds);
            selections.push_back({Id(one), static_cast<int32_t>(random() % 2), random()});
            expected.push_back(model.contains(one) ? selections.back().row_mask : 0);
          }
          const auto rows = store_->GatherRows(selections);
          ASSERT_TRUE(rows.ok()) << rows.status();
          ASSERT_EQ(rows->found, expected) << "seed " << seed << " step " << step;
          std::string bytes;
          for (size_t i = 0; i < selections.size(); ++i) {
            const int layer = selections[i].block.layer;
            for (int one = base; one < base + kIds; ++one) {
              if (Id(one) != selections[i].block) continue;
              const std::string value = NumberedValue(one, layer);
              const BlockView view = *BlockView::Parse(value);
              for (int token = 0; token < kBlockTokens; ++token) {
                if (expected[i] >> token & 1) bytes += view.Row(selections[i].kv_head, token);
              }
            }
          }
          ASSERT_EQ(rows->rows, bytes);
          break;
        }
        case 5: {
          const BlockId id = Id(number);
          ASSERT_EQ(store_->LookupPrefix({&id.key, 1}, 1).blocks, model.contains(number) && id.layer == 0);
          break;
        }
        case 6:
          if (random() % 8 == 0) {
            ASSERT_TRUE(store_->Drain().ok());
            for (auto& [drained, durable] : model) durable = true;
          }
          break;
        case 7:
          if (random() % 8 == 0) {
            Reopen();
            for (auto it = model.begin(); it != model.end();) {
              const bool holds = Holds(it->first);
              ASSERT_TRUE(holds || !it->second) << "lost a durable block: seed " << seed << " step " << step;
              it = holds ? std::next(it) : model.erase(it);
            }
            for (auto& [left, durable] : model) durable = true;  // they came from disk
          }
          break;
        default: ASSERT_EQ(Holds(number), model.contains(number)) << "seed " << seed << " step " << step;
      }
      ASSERT_LE(BytesInMemory(), kMemoryBytes + Value(0).size());
    }
  }
  EXPECT_EQ(store_->Stats().disk.corrupt, 0u);
}

TEST_F(TieredStoreTest, ThreadsThatPutReadGatherAndPinSeeOnlyWholeValues) {
  std::vector<std::thread> threads;
  for (unsigned seed = 0; seed < 4; ++seed) {
    threads.emplace_back([this, seed] {
      std::mt19937 random(seed);
      for (int step = 0; step < 150; ++step) {
        const int number = static_cast<int>(random() % 70);
        switch (random() % 4) {
          case 0: EXPECT_TRUE(Put(number, random() % 4 == 0).ok()); break;
          case 1: Holds(number); break;
          case 2: {
            auto lease = BlockLease::Take(store_.get(), Id(number));
            if (lease.ok()) {
              EXPECT_TRUE(store_->Contains(Id(number)));
            }
            break;
          }
          default: {
            const std::vector<RowSelection> one = {{Id(number), 0, 1}};
            const auto rows = store_->GatherRows(one);
            EXPECT_TRUE(rows.ok());
            if (rows.ok() && rows->found[0] == 1) {
              EXPECT_EQ(Checksum32(rows->rows), rows->row_checksums[0]);
            }
          }
        }
        EXPECT_LE(store_->Stats().memory.bytes, store_->Stats().memory.limit_bytes);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(store_->Stats().pinned_objects, 0u);
  EXPECT_EQ(store_->Stats().disk.corrupt, 0u);
  EXPECT_EQ(store_->Stats().dropped, 0u);
}

}  // namespace
}  // namespace tidepool
