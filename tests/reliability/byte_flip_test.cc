// Single bits flipped where a block value lies: in the memory tier's own bytes, in RocksDB's files and below its
// checksums, in a real redis-server. Each is a miss that is counted, the damaged value is gone, and it can be stored
// anew. 500 flips a station; half of them in the header and the table of checksums.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/checksum.h"
#include "cacheservice/rocksdb/database.h"
#include "cacheservice/tiers/disk_tier.h"
#include "cacheservice/tiers/remote_record.h"
#include "cacheservice/tiers/remote_tier.h"
#include "cacheservice/tiers/tiered_store.h"
#include "tests/cacheservice/resp/redis_servers.h"
#include "tests/cacheservice/tiers/wide_blocks.h"
#include "tests/reliability/bit_flip.h"
#include "tests/support/blocks.h"
#include "tests/support/paths.h"
#include "tests/support/temp_dir.h"

namespace tidepool {
namespace {

using test::BitFlip;
using test::NumberedKey;
using test::NumberedValue;

constexpr int kFlips = 500;
constexpr uint64_t kDiskBytes = uint64_t{32} << 20;

BlockId Id(int number) { return {NumberedKey(number), number % 3}; }
BlockValue Value(int number) { return std::make_shared<const std::string>(NumberedValue(number, number % 3)); }

std::unique_ptr<Database> OpenDatabase(const std::string& data_dir) {
  DatabaseOptions options;
  options.data_dir = data_dir;
  options.write_buffer_bytes = DiskTier::WriteBufferBytes(kDiskBytes);
  return *Database::Open(options);
}

class MemoryFlipTest : public testing::Test {
 protected:
  static constexpr int kBlocks = 40;

  MemoryFlipTest() : database_(OpenDatabase(dir_.path())) {
    CacheOptions options;
    options.data_dir = dir_.path();
    options.memory_bytes = uint64_t{8} << 20;
    options.disk_bytes = kDiskBytes;
    store_ = *TieredStore::Open(options, database_.get());
    for (int number = 0; number < kBlocks; ++number) EXPECT_TRUE(Put(number).ok());
  }
  absl::StatusOr<Tier> Put(int number) { return store_->Put(Id(number), *Value(number), /*durable=*/false); }
  // In place: readers share these bytes.
  void Flip(int number, const BitFlip& flip) {
    const BlockValue held = *store_->Get(Id(number));
    ASSERT_NE(held, nullptr);
    flip.Apply(const_cast<std::string*>(held.get()));
  }
  // All rows of a block.
  RecalledRows GatherAll(int number) {
    const std::vector<RowSelection> all = {{Id(number), 0, ~uint64_t{0}}, {Id(number), 1, ~uint64_t{0}}};
    const absl::StatusOr<RecalledRows> rows = store_->GatherRows(all);
    EXPECT_TRUE(rows.ok()) << rows.status();
    return rows.ok() ? *rows : RecalledRows();
  }
  void ExpectWhole(int number) {
    const BlockValue value = *store_->Get(Id(number));
    ASSERT_NE(value, nullptr);
    EXPECT_TRUE(*value == *Value(number)) << number;
  }

  test::TempDir dir_;
  std::unique_ptr<Database> database_;
  std::unique_ptr<TieredStore> store_;
};

TEST_F(MemoryFlipTest, AFlippedBitIsAMissOfTheGatherThatMeetsItAndTheValueIsDropped) {
  std::mt19937 random(1);
  for (int i = 0; i < kFlips / 2; ++i) {
    const int number = static_cast<int>(random() % kBlocks);
    const BitFlip flip(*Value(number), &random);
    Flip(number, flip);
    const RecalledRows rows = GatherAll(number);
    EXPECT_EQ(rows.row_checksums.size(), 0u) << flip;
    EXPECT_TRUE(rows.rows.empty());
    EXPECT_EQ(store_->Stats().memory.corrupt, static_cast<uint64_t>(i) + 1) << flip;
    EXPECT_FALSE(store_->Contains(Id(number))) << flip;
    ASSERT_EQ(*Put(number), Tier::kMemory);
    ExpectWhole(number);
  }
}

TEST_F(MemoryFlipTest, AFlippedBitIsAMissOfTheReaderOfTheWholeValueAndTheValueIsDropped) {
  std::mt19937 random(2);
  for (int i = 0; i < kFlips / 2; ++i) {
    const int number = static_cast<int>(random() % kBlocks);
    const BitFlip flip(*Value(number), &random);
    Flip(number, flip);
    const absl::StatusOr<BlockValue> read = store_->Get(Id(number));
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(*read, nullptr) << flip;
    EXPECT_EQ(store_->Stats().memory.corrupt, static_cast<uint64_t>(i) + 1) << flip;
    EXPECT_FALSE(store_->Contains(Id(number))) << flip;
    ASSERT_EQ(*Put(number), Tier::kMemory);
    ExpectWhole(number);
  }
}

TEST_F(MemoryFlipTest, WhatIsOnDiskAsWellIsReadFromThere) {
  ASSERT_EQ(*store_->Put(Id(100), *Value(100), /*durable=*/true), Tier::kDisk);
  std::mt19937 random(3);
  for (int i = 0; i < 20; ++i) {
    Flip(100, BitFlip(*Value(100), &random));
    if (i % 2 == 0) {
      EXPECT_EQ(GatherAll(100).row_checksums.size(), 2u * kBlockTokens);
    }
    ExpectWhole(100);
  }
}

TEST_F(MemoryFlipTest, WhoVerifiesHimselfAsksAgainForWhatIsDamaged) {
  ASSERT_EQ(*store_->Put(Id(100), *Value(100), /*durable=*/true), Tier::kDisk);
  std::mt19937 random(4);
  const BlockId id = Id(100);
  Flip(100, BitFlip(*Value(100), &random));
  const auto as_stored = store_->GetMany({&id, 1}, absl::InfiniteFuture(), TieredStore::Verify::kAsStored);
  ASSERT_NE((*as_stored)[0], nullptr);
  EXPECT_FALSE(*(*as_stored)[0] == *Value(100));
  EXPECT_EQ(store_->Stats().memory.corrupt, 0u);
  ExpectWhole(100);
  EXPECT_EQ(store_->Stats().memory.corrupt, 1u);
}

class DiskFlipTest : public testing::Test {
 protected:
  DiskFlipTest() { Open(); }
  void Open() {
    database_ = OpenDatabase(dir_.path());
    tier_ = *DiskTier::Open(database_.get(), kDiskBytes);
  }
  void Close() {
    tier_.reset();
    database_.reset();
  }
  void Fill(int blocks) {
    std::vector<DiskPut> puts;
    for (int number = 0; number < blocks; ++number) puts.push_back({.id = Id(number), .value = Value(number)});
    for (const absl::Status& status : tier_->Put(puts, /*durable=*/true)) ASSERT_TRUE(status.ok()) << status;
  }
  BlockValue Get(int number) {
    const BlockId id = Id(number);
    const absl::StatusOr<BlockValue> value = tier_->Get({&id, 1})[0];
    EXPECT_TRUE(value.ok()) << value.status();
    return value.ok() ? *value : nullptr;
  }
  void ExpectDropped(int number, const BitFlip& flip) {
    EXPECT_EQ(Get(number), nullptr) << flip;
    EXPECT_FALSE(tier_->Contains(Id(number))) << flip;
  }
  void ExpectStoredAnew(int number) {
    const DiskPut put = {.id = Id(number), .value = Value(number)};
    ASSERT_TRUE(tier_->Put({&put, 1}, /*durable=*/true)[0].ok());
    const BlockValue value = Get(number);
    ASSERT_NE(value, nullptr);
    EXPECT_TRUE(*value == *put.value);
  }

  test::TempDir dir_;
  std::unique_ptr<Database> database_;
  std::unique_ptr<DiskTier> tier_;
};

TEST_F(DiskFlipTest, AFlippedBitInAFileIsAMissAndTheValueIsDroppedForGood) {
  constexpr int kBlocks = kFlips / 2;
  Fill(kBlocks);
  ASSERT_TRUE(database_->Flush().ok());
  Close();
  // Where each value lies: its bytes, with those of its first row, are in one file only.
  std::mt19937 random(4);
  std::vector<BitFlip> flips(kBlocks);
  int flipped = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dir_.File("db"))) {
    if (entry.path().extension() != ".sst") continue;
    std::string bytes = test::ReadFile(entry.path());
    for (int number = 0; number < kBlocks; ++number) {
      const std::string value = *Value(number);
      const size_t at = bytes.find(value);
      if (at == std::string::npos) continue;
      flips[number] = BitFlip(value, &random);
      flips[number].Apply(&bytes, at);
      ++flipped;
    }
    std::ofstream(entry.path(), std::ios::binary) << bytes;
  }
  ASSERT_EQ(flipped, kBlocks);
  Open();
  for (int number = 0; number < kBlocks; ++number) ExpectDropped(number, flips[number]);
  EXPECT_EQ(tier_->Stats().corrupt, static_cast<uint64_t>(kBlocks));
  for (int number = 0; number < kBlocks; number += 2) ExpectStoredAnew(number);
  Close();
  Open();
  for (int number = 0; number < kBlocks; ++number) EXPECT_EQ(Get(number) != nullptr, number % 2 == 0) << number;
}

// As the disk's and RocksDB's checksums would not see it: damaged in the machine's memory before it was written.
TEST_F(DiskFlipTest, AFlippedBitUnderARightChecksumOfRocksDbIsAMissAndTheValueIsDropped) {
  constexpr int kBlocks = kFlips / 2;
  Fill(kBlocks);
  std::vector<std::pair<std::string, std::string>> stored;
  ASSERT_TRUE(database_
                  ->Scan(Family::kBlockValues, {}, {},
                         [&](std::string_view key, std::string_view value) {
                           stored.emplace_back(key, value);
                           return true;
                         })
                  .ok());
  ASSERT_EQ(stored.size(), static_cast<size_t>(kBlocks));
  std::mt19937 random(5);
  for (int number = 0; number < kBlocks; ++number) {  // keys ascend as they were put
    auto& [key, value] = stored[number];
    const BitFlip flip(value, &random);
    flip.Apply(&value);
    const Mutation mutation = {.family = Family::kBlockValues, .key = key, .value = value};
    ASSERT_TRUE(database_->Write({&mutation, 1}, Durability::kUnlogged).ok());
    ExpectDropped(number, flip);
    EXPECT_EQ(tier_->Stats().corrupt, static_cast<uint64_t>(number) + 1) << flip;
    ExpectStoredAnew(number);
  }
}

TEST(RemoteFlipTest, AFlippedBitInTheEngineIsAMissAndTheValueCanBeStoredAgain) {
  constexpr int kHeads = 10;  // 330 KB: several pieces of 64 KiB
  test::RedisServer server;
  RemoteTierOptions options;
  options.url = server.url();
  options.timeout = absl::Seconds(30);
  options.piece_bytes = kMinPieceBytes;
  const std::unique_ptr<RemoteTier> tier = *RemoteTier::Open(options);
  const DiskPut put = {.id = test::WideId(2), .value = std::make_shared<const std::string>(test::WideValue(2, kHeads))};
  const auto get = [&] { return tier->Get({&put.id, 1}, absl::InfiniteFuture()).values[0]; };
  ASSERT_TRUE(tier->Put({&put, 1})[0].ok());
  const uint32_t tag = Checksum32(*put.value);
  const int pieces = static_cast<int>((put.value->size() + kMinPieceBytes - 1) / kMinPieceBytes);
  ASSERT_GE(pieces, 5);
  std::mt19937 random(6);
  for (int i = 0; i < kFlips; ++i) {
    // The first piece carries the head, the value's own header and most of its checksums.
    const uint32_t piece = random() % 2 == 0 ? 0 : random() % pieces;
    const std::string key = piece == 0 ? RemoteHeadKey(put.id) : RemotePieceKey(put.id, tag, piece);
    std::string stored = server.Call({"GET", key}).text;
    BitFlip flip(stored, &random);
    if (piece == 0 && i % 3 == 0) flip.byte = random() % kRemoteHeadBytes;
    flip.Apply(&stored);
    server.Call({"SETRANGE", key, absl::StrCat(flip.byte), stored.substr(flip.byte, 1)});
    EXPECT_EQ(get(), nullptr) << flip << " of piece " << piece;
    const RemoteTierStats stats = tier->Stats();
    // A tag that is damaged leads to pieces that are not there.
    EXPECT_EQ(stats.corrupt + stats.incomplete, static_cast<uint64_t>(i) + 1) << flip << " of piece " << piece;
    server.Call({"DEL", key});
    ASSERT_TRUE(tier->Put({&put, 1})[0].ok());
    const BlockValue again = get();
    ASSERT_NE(again, nullptr) << flip << " of piece " << piece;
    EXPECT_TRUE(*again == *put.value);
  }
}

}  // namespace
}  // namespace tidepool
