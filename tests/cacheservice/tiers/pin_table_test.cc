#include "cacheservice/tiers/pin_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "cacheservice/rocksdb/database.h"
#include "cacheservice/tiers/tiered_store.h"
#include "tests/support/blocks.h"
#include "tests/support/temp_dir.h"

namespace tidepool {
namespace {

using test::NumberedKey;
using test::NumberedValue;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// Values of NumberedValue are 8.7 KB: memory holds some 80 of them, a quarter of which a tenant can pin.
constexpr uint64_t kMemoryBytes = uint64_t{1} << 20;
constexpr int kLayers = 3;

PinName Session(const std::string& name, const std::string& tenant = "a") {
  return {.tenant = tenant, .is_session = true, .name = name};
}

class PinTableTest : public testing::Test {
 protected:
  PinTableTest() { Open(); }
  ~PinTableTest() override { Close(); }
  void Open() {
    DatabaseOptions database;
    database.data_dir = dir_.path();
    database.write_buffer_bytes = uint64_t{256} << 10;
    database_ = *Database::Open(database);
    CacheOptions options;
    options.data_dir = dir_.path();
    options.memory_bytes = kMemoryBytes;
    options.disk_bytes = uint64_t{16} << 20;
    store_ = *TieredStore::Open(options, database_.get());
    pins_ = *PinTable::Open(store_.get(), database_.get(), [this] { return Now(); });
  }
  absl::Time Now() const { return absl::FromUnixSeconds(unix_seconds_); }
  void Close() {
    pins_.reset();
    EXPECT_TRUE(store_->Drain().ok());
    store_.reset();
    database_.reset();
  }
  // Blocks [first, last) with all layers, each a chain's.
  void PutBlocks(int first, int last, const std::string& tenant = "a") {
    for (int block = first; block < last; ++block) {
      std::vector<BlockPut> puts;
      for (int layer = 0; layer < kLayers; ++layer) {
        puts.push_back({.id = {NumberedKey(block), layer}, .value = NumberedValue(block, layer), .tenant = tenant});
      }
      for (const auto& put : store_->PutMany(std::move(puts))) ASSERT_TRUE(put.ok()) << put.status();
    }
  }
  static std::vector<BlockKey> Keys(int first, int last) {
    std::vector<BlockKey> keys;
    for (int block = first; block < last; ++block) keys.push_back(NumberedKey(block));
    return keys;
  }
  bool InMemory(int block) {
    bool asked = false;
    const BlockKey key = NumberedKey(block);
    return store_->Places({&key, 1}, kLayers, absl::InfiniteFuture(), &asked)[0].memory_layers == kLayers;
  }

  test::TempDir dir_;
  std::atomic<int64_t> unix_seconds_{1'800'000'000};  // the table's own thread reads it, too
  std::unique_ptr<Database> database_;
  std::unique_ptr<TieredStore> store_;
  std::unique_ptr<PinTable> pins_;
};

TEST_F(PinTableTest, PinnedBlocksStayInMemoryWhateverComes) {
  PutBlocks(0, 2);
  const auto pin = pins_->Pin(Session("s"), Keys(0, 2), absl::InfiniteFuture());
  ASSERT_TRUE(pin.ok()) << pin.status();
  EXPECT_EQ(pin->blocks, 2);
  EXPECT_EQ(pin->objects, 2 * kLayers);
  EXPECT_EQ(pin->missing_blocks, 0);
  EXPECT_EQ(pin->bytes, 2 * kLayers * NumberedValue(0, 0).size());
  PutBlocks(10, 60);
  EXPECT_TRUE(InMemory(0));
  EXPECT_TRUE(InMemory(1));
  EXPECT_EQ(store_->Stats().pinned_objects, 2u * kLayers);

  ASSERT_TRUE(pins_->Unpin(Session("s")).ok());
  EXPECT_EQ(store_->Stats().pinned_objects, 0u);
}

TEST_F(PinTableTest, BlocksOnDiskAreBroughtBackToBePinned) {
  PutBlocks(0, 1);
  PutBlocks(10, 60);
  const auto pin = pins_->Pin(Session("s"), Keys(0, 1), absl::InfiniteFuture());
  ASSERT_TRUE(pin.ok()) << pin.status();
  EXPECT_TRUE(InMemory(0));
}

TEST_F(PinTableTest, WhatIsNotStoredIsCountedAndAloneIsNotFound) {
  PutBlocks(0, 1);
  const auto pin = pins_->Pin(Session("s"), Keys(0, 3), absl::InfiniteFuture());
  ASSERT_TRUE(pin.ok()) << pin.status();
  EXPECT_EQ(pin->missing_blocks, 2);
  EXPECT_EQ(pins_->Pin(Session("t"), Keys(5, 6), absl::InfiniteFuture()).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(pins_->Unpin(Session("t")).code(), absl::StatusCode::kNotFound);
}

TEST_F(PinTableTest, ATenantPinsNoMoreThanHisLimitAndNothingOfWhatIsRefused) {
  const uint64_t block_bytes = kLayers * NumberedValue(0, 0).size();
  ASSERT_TRUE(store_->SetQuota("a", {.pinned_bytes = 2 * block_bytes}).ok());
  PutBlocks(0, 4);
  ASSERT_TRUE(pins_->Pin(Session("one"), Keys(0, 1), absl::InfiniteFuture()).ok());
  const absl::Status refused = pins_->Pin(Session("two"), Keys(1, 3), absl::InfiniteFuture()).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted) << refused;
  EXPECT_EQ(store_->Stats().pinned_objects, 1u * kLayers);
  EXPECT_TRUE(pins_->Pin(Session("two"), Keys(1, 2), absl::InfiniteFuture()).ok());
  // A pin that is replaced does not count against the new one.
  EXPECT_TRUE(pins_->Pin(Session("two"), Keys(2, 3), absl::InfiniteFuture()).ok());
  EXPECT_EQ(store_->Stats().pinned_objects, 2u * kLayers);
  // Another tenant has a limit of his own.
  PutBlocks(4, 5, "b");
  EXPECT_TRUE(pins_->Pin(Session("one", "b"), Keys(4, 5), absl::InfiniteFuture()).ok());
  EXPECT_THAT(pins_->List("a"), SizeIs(2));
  EXPECT_THAT(pins_->List(""), SizeIs(3));
}

TEST_F(PinTableTest, APinExpires) {
  PutBlocks(0, 1);
  ASSERT_TRUE(pins_->Pin(Session("s"), Keys(0, 1), Now() + absl::Hours(1)).ok());
  pins_->Expire();
  EXPECT_THAT(pins_->List("a"), SizeIs(1));
  unix_seconds_ += 3600;
  pins_->Expire();
  EXPECT_THAT(pins_->List("a"), IsEmpty());
  EXPECT_EQ(store_->Stats().pinned_objects, 0u);
}

TEST_F(PinTableTest, PinsOutliveARestart) {
  PutBlocks(0, 2);
  const PinName prefix = {.tenant = "a", .is_session = false, .name = "system-prompt"};
  ASSERT_TRUE(pins_->Pin(prefix, Keys(0, 2), Now() + absl::Hours(1)).ok());
  ASSERT_TRUE(pins_->Pin(Session("gone"), Keys(0, 1), absl::InfiniteFuture()).ok());
  ASSERT_TRUE(pins_->Unpin(Session("gone")).ok());
  Close();
  Open();
  const std::vector<PinInfo> pins = pins_->List("");
  ASSERT_THAT(pins, SizeIs(1));
  EXPECT_EQ(pins[0].name, prefix);
  EXPECT_EQ(pins[0].objects, 2 * kLayers);
  EXPECT_EQ(pins[0].expires, Now() + absl::Hours(1));
  PutBlocks(10, 60);
  EXPECT_TRUE(InMemory(0));
}

TEST_F(PinTableTest, NamesAndNumbersOfBlocksAreChecked) {
  PutBlocks(0, 1);
  const auto refused = [this](const PinName& name, const std::vector<BlockKey>& keys) {
    const absl::Status status = pins_->Pin(name, keys, absl::InfiniteFuture()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return std::string(status.message());
  };
  EXPECT_THAT(refused(Session(""), Keys(0, 1)), HasSubstr("session_id"));
  EXPECT_THAT(refused(Session("two words"), Keys(0, 1)), HasSubstr("session_id"));
  EXPECT_THAT(refused(Session(std::string(129, 'x')), Keys(0, 1)), HasSubstr("128"));
  EXPECT_THAT(refused(Session("s", ""), Keys(0, 1)), HasSubstr("tenant"));
  EXPECT_THAT(refused(Session("s"), {}), HasSubstr("keys"));
}

}  // namespace
}  // namespace tidepool
