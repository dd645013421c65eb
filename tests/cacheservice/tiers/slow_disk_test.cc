// TieredStore over a disk that has become slow: prefixes go without it, recall and sessions do not, and it is used
// again when it is fast.
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <vector>

#include "cacheservice/rocksdb/database.h"
#include "cacheservice/tiers/tiered_store.h"
#include "tests/cacheservice/rocksdb/faulty_disk.h"
#include "tests/support/blocks.h"
#include "tests/support/eventually.h"
#include "tests/support/temp_dir.h"

namespace tidepool {
namespace {

using test::Eventually;
using test::NumberedKey;
using test::NumberedValue;
using State = CircuitBreaker::State;

constexpr int kBlocks = 200;       // of 8.7 KB and one layer: far more than memory holds
constexpr double kComputes = 1e6;  // bytes in a second
constexpr std::chrono::milliseconds kSlow(200);

class SlowDiskTest : public testing::Test {
 protected:
  explicit SlowDiskTest(absl::Duration retry = absl::Hours(1)) : retry_(retry) {
    Open();
    for (int number = 0; number < kBlocks; ++number) {
      EXPECT_TRUE(store_->Put({NumberedKey(number), 0}, NumberedValue(number, 0), /*durable=*/true).ok());
      chain_.push_back(NumberedKey(number));
    }
    EXPECT_TRUE(store_->Drain().ok());
    store_.reset();
    database_.reset();
    Open();  // all is on disk only
  }
  void Open() {
    DatabaseOptions database;
    database.data_dir = dir_.path();
    database.env = disk_.env();
    database_ = *Database::Open(database);
    CacheOptions options;
    options.data_dir = dir_.path();
    options.memory_bytes = uint64_t{256} << 10;
    options.disk_bytes = uint64_t{16} << 20;
    options.slow_tier_retry = retry_;
    store_ = *TieredStore::Open(options, database_.get());
  }
  // How many of two blocks, others each time, come for who computes so much.
  int Fetch(double compute_bytes_per_second) {
    next_ = (next_ + 2) % kBlocks;
    const std::vector<BlockId> ids = {{chain_[next_], 0}, {chain_[next_ + 1], 0}};
    const auto values = store_->GetMany(ids, {absl::InfiniteFuture(), compute_bytes_per_second});
    EXPECT_TRUE(values.ok()) << values.status();
    int found = 0;
    for (size_t i = 0; values.ok() && i < ids.size(); ++i) {
      if ((*values)[i] == nullptr) continue;
      EXPECT_EQ(*(*values)[i], NumberedValue(next_ + static_cast<int>(i), 0));
      ++found;
    }
    return found;
  }
  PrefixHit Lookup() { return store_->LookupPrefix(chain_, 1, {absl::InfiniteFuture(), kComputes}); }

  const absl::Duration retry_;
  const test::TempDir dir_;
  const test::FaultyDisk disk_;
  std::unique_ptr<Database> database_;
  std::unique_ptr<TieredStore> store_;
  std::vector<BlockKey> chain_;
  int next_ = 0;
};

TEST_F(SlowDiskTest, PrefixesGoWithoutItAndRecallAndSessionsDoNot) {
  EXPECT_EQ(Lookup().blocks, kBlocks);
  disk_->set_read_delay(kSlow);
  for (int read = 0; read < 2; ++read) EXPECT_EQ(Fetch(kComputes), 2) << "it is not known yet";
  EXPECT_EQ(Fetch(kComputes), 0);
  const PrefixHit hit = Lookup();
  EXPECT_LT(hit.blocks, 2);
  EXPECT_EQ(hit.slow_blocks, kBlocks - hit.blocks);
  EXPECT_TRUE(store_->SlowFor(kComputes).disk);
  CacheStats stats = store_->Stats();
  EXPECT_EQ(stats.disk_reads.state, State::kOpen);
  EXPECT_EQ(stats.disk_reads.lookups_left_out, 1u);
  EXPECT_EQ(stats.disk_reads.reads, 2u);
  EXPECT_EQ(stats.slow_blocks, 2u);

  EXPECT_EQ(Fetch(0), 2) << "a session";
  EXPECT_EQ(Fetch(100), 2) << "of a caller that computes 100 bytes in a second";
  const std::vector<RowSelection> rows = {{{chain_[150], 0}, 0, 1}, {{chain_[151], 0}, 1, 2}};
  const auto recalled = store_->GatherRows(rows);
  ASSERT_TRUE(recalled.ok()) << recalled.status();
  EXPECT_TRUE(recalled->complete);
  EXPECT_EQ(recalled->row_checksums.size(), 2u);
  EXPECT_EQ(store_->LookupPrefix(chain_, 1).blocks, kBlocks);
  stats = store_->Stats();
  EXPECT_EQ(stats.disk_reads.reads, 5u) << "these are measured as well";
  EXPECT_EQ(stats.slow_blocks, 2u);
}

// Rows that were found at once were lost with those that took too long.
TEST_F(SlowDiskTest, ARecallThatWouldBeLateBringsWhatItHasInstead) {
  constexpr std::chrono::milliseconds kRead(20);
  const int in_memory = kBlocks;
  ASSERT_TRUE(store_->Put({NumberedKey(in_memory), 0}, NumberedValue(in_memory, 0), /*durable=*/false).ok());
  std::vector<RowSelection> rows = {{{NumberedKey(in_memory), 0}, 0, 1}};
  for (const BlockKey& key : chain_) rows.push_back({{key, 0}, 0, 1});
  disk_->set_read_delay(kRead);
  const auto recalled = store_->GatherRows(rows, absl::Now() + 20 * absl::FromChrono(kRead));
  ASSERT_TRUE(recalled.ok()) << recalled.status();
  EXPECT_FALSE(recalled->complete);
  EXPECT_EQ(recalled->found[0], 1u);
  EXPECT_LE(recalled->row_checksums.size(), 20u) << "one at a time";
  EXPECT_GE(store_->Stats().late_blocks, kBlocks - 20u);
}

class RecoveringDiskTest : public SlowDiskTest {
 protected:
  RecoveringDiskTest() : SlowDiskTest(absl::Milliseconds(1)) {}
};

TEST_F(RecoveringDiskTest, AProbeFindsItFastAgain) {
  disk_->set_read_delay(kSlow);
  for (int read = 0; read < 2; ++read) EXPECT_EQ(Fetch(kComputes), 2);
  ASSERT_TRUE(Eventually([&] { return Fetch(kComputes) == 0; })) << "between two probes";
  disk_->set_read_delay(std::chrono::milliseconds(0));
  ASSERT_TRUE(Eventually([&] { return Fetch(kComputes) == 2 && store_->Stats().disk_reads.state == State::kClosed; }));
  EXPECT_EQ(Lookup().blocks, kBlocks);
  EXPECT_EQ(Lookup().slow_blocks, 0);
}

}  // namespace
}  // namespace tidepool
