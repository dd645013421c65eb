// TieredStore over a remote tier: real servers, killed in the middle.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "cacheservice/rocksdb/database.h"
#include "cacheservice/tiers/tiered_store.h"
#include "tests/cacheservice/resp/redis_servers.h"
#include "tests/cacheservice/tiers/wide_blocks.h"
#include "tests/support/eventually.h"
#include "tests/support/temp_dir.h"

namespace tidepool {
namespace {

using test::Eventually;
using test::RedisCluster;
using test::RedisServer;
using test::WideId;
using test::WideValue;
using Breaker = RemoteTierStats::Breaker;

constexpr uint64_t kMemoryBytes = uint64_t{4} << 20;
constexpr uint64_t kDiskBytes = uint64_t{16} << 20;

class Cache {
 public:
  explicit Cache(const std::string& url) : url_(url) { Open(); }
  ~Cache() { Close(); }
  void Open() {
    DatabaseOptions database;
    database.data_dir = dir_.path();
    database.write_buffer_bytes = uint64_t{256} << 10;
    database_ = *Database::Open(database);
    CacheOptions options;
    options.data_dir = dir_.path();
    options.memory_bytes = kMemoryBytes;
    options.disk_bytes = kDiskBytes;
    options.remote.url = url_;
    options.remote.timeout = absl::Seconds(30);
    options.remote.breaker.first_pause = absl::Milliseconds(20);
    options.remote.breaker.longest_pause = absl::Milliseconds(50);
    store_ = *TieredStore::Open(options, database_.get());
  }
  void Close() {
    store_.reset();
    database_.reset();
  }
  TieredStore* operator->() { return store_.get(); }

  void Put(int number) {
    const auto tier = store_->Put(WideId(number), WideValue(number), /*durable=*/false);
    ASSERT_TRUE(tier.ok()) << tier.status();
  }
  // No faster than the remote tier takes it.
  void PutAtItsPace(int number) {
    Put(number);
    ASSERT_TRUE(Eventually([this] { return store_->Stats().remote.backlog_bytes < (uint64_t{2} << 20); }));
  }
  // The value as it was put, or a miss.
  bool Holds(int number) {
    const auto value = store_->Get(WideId(number));
    EXPECT_TRUE(value.ok()) << value.status();
    if (!value.ok() || *value == nullptr) return false;
    EXPECT_TRUE(**value == WideValue(number)) << number;
    return true;
  }

 private:
  const test::TempDir dir_;
  const std::string url_;
  std::unique_ptr<Database> database_;
  std::unique_ptr<TieredStore> store_;
};

TEST(RemoteStoreTest, FourTimesMemoryAndDiskAreHeldAndRecalledByteForByte) {
  RedisServer server;
  Cache cache(server.url());
  const std::string value = WideValue(0);
  const int count = static_cast<int>(4 * (kMemoryBytes + kDiskBytes) / value.size()) + 1;
  for (int number = 0; number < count; ++number) cache.PutAtItsPace(number);
  CacheStats stats = cache->Stats();
  EXPECT_EQ(stats.remote.dropped, 0u);
  EXPECT_EQ(stats.remote.write_failures, 0u);
  EXPECT_LE(stats.memory.bytes + stats.demotion_queue_bytes, kMemoryBytes);
  EXPECT_LE(stats.disk.bytes, kDiskBytes);
  EXPECT_GT(stats.remote.put_bytes, 3 * (kMemoryBytes + kDiskBytes));
  for (int number = 0; number < count; ++number) EXPECT_TRUE(cache.Holds(number)) << number;
  stats = cache->Stats();
  EXPECT_GT(stats.remote.hits, stats.disk.hits);
  EXPECT_EQ(stats.remote.corrupt + stats.remote.incomplete + stats.remote.failed, 0u);
  EXPECT_GT(stats.promotions, 0u);

  // The same after a restart, for another process, and as rows.
  ASSERT_TRUE(cache->Drain().ok());
  cache.Close();
  cache.Open();
  std::vector<RowSelection> selections;
  for (int number = 0; number < count; number += 3)
    selections.push_back({WideId(number), number % 8, 0x8000000000000001u});
  const auto rows = cache->GatherRows(selections);
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_TRUE(rows->complete);
  std::string expected;
  for (int number = 0; number < count; number += 3) {
    const std::string all = WideValue(number);
    const BlockView view = *BlockView::Parse(all);
    for (const int token : {0, 63}) expected += view.Row(number % 8, token);
  }
  EXPECT_TRUE(rows->rows == expected);
}

TEST(RemoteStoreTest, APrefixMayLieInAnyTier) {
  RedisServer server;
  Cache cache(server.url());
  std::vector<BlockKey> chain;
  for (int number = 0; number < 90; ++number) {
    cache.PutAtItsPace(3 * number);  // all of layer 0
    chain.push_back(WideId(3 * number).key);
  }
  EXPECT_FALSE(cache->Contains({chain[0], 0})) << "neither in memory nor on disk";
  EXPECT_EQ(cache->LookupPrefix(chain, 1).blocks, 90);
  chain.insert(chain.begin() + 60, test::NumberedKey(1));
  EXPECT_EQ(cache->LookupPrefix(chain, 1).blocks, 60);
  EXPECT_EQ(cache->LookupPrefix(chain, 2).blocks, 0) << "layer 1 is not stored";
}

TEST(RemoteStoreTest, WithoutItsServerTheCacheGoesOnAndCopiesWhenItIsBack) {
  RedisServer server;
  Cache cache(server.url());
  cache.PutAtItsPace(0);
  server.Kill();
  int number = 1;
  // Half of the disk, and memory: nothing has to be copied yet, then less than the disk holds.
  for (; number < 50; ++number) cache.Put(number);
  ASSERT_TRUE(Eventually([&] { return cache->Stats().remote.breaker != Breaker::kClosed; }));
  for (int held = 0; held < number; ++held) EXPECT_TRUE(cache.Holds(held)) << held;
  EXPECT_FALSE(cache.Holds(1000));
  const std::vector<RowSelection> missing = {{WideId(1000), 0, 1}, {WideId(49), 0, 1}};
  const auto rows = cache->GatherRows(missing);
  ASSERT_TRUE(rows.ok());
  EXPECT_FALSE(rows->complete) << "it may be there";
  EXPECT_EQ(cache->Stats().remote.dropped, 0u);
  server.Start();
  ASSERT_TRUE(Eventually([&] { return cache->Stats().remote.backlog_bytes == 0; }));
  EXPECT_EQ(cache->Stats().remote.breaker, Breaker::kClosed);
  for (; number < 110; ++number) cache.PutAtItsPace(number);
  for (int held = 0; held < number; ++held) EXPECT_TRUE(cache.Holds(held)) << held;
  EXPECT_GT(cache->Stats().remote.hits, 0u);
  EXPECT_EQ(cache->Stats().remote.dropped, 0u);
}

TEST(RemoteStoreTest, WhatTheDiskDropsWhileTheServerIsAwayIsCountedAndMissed) {
  Cache cache("redis://127.0.0.1:1");
  for (int number = 0; number < 100; ++number) cache.Put(number);
  ASSERT_TRUE(cache->Drain().ok());
  EXPECT_GT(cache->Stats().remote.dropped, 0u);
  EXPECT_FALSE(cache.Holds(0));
  EXPECT_TRUE(cache.Holds(99));
}

TEST(RemoteStoreTest, AMasterOfTheClusterIsKilledUnderLoadAndNoByteIsWrong) {
  RedisCluster cluster(3, 1);
  Cache cache(cluster.url());
  constexpr int kBlocks = 120;
  for (int number = 0; number < kBlocks; ++number) cache.PutAtItsPace(number);
  std::atomic<bool> stop{false};
  std::atomic<int> next{kBlocks}, rounds{0};
  std::vector<std::thread> load;
  for (int reader = 0; reader < 2; ++reader) {
    load.emplace_back([&, reader] {
      for (int number = reader; !stop; number = (number + 7) % kBlocks) {
        cache.Holds(number);
        ++rounds;
      }
    });
  }
  load.emplace_back([&] {
    while (!stop) cache.Put(next++);
  });
  const auto more_rounds = [&rounds] {
    return Eventually([&rounds, from = rounds.load()] { return rounds > from + 50; });
  };
  EXPECT_TRUE(more_rounds());
  cluster.node(0).Kill();
  EXPECT_TRUE(more_rounds()) << "the service goes on";
  EXPECT_TRUE(Eventually([&] { return cluster.OwnerOf(0, 1) == 3; })) << "the replica takes over";
  EXPECT_TRUE(more_rounds());
  stop = true;
  for (std::thread& thread : load) thread.join();
  // Misses are allowed for what the dead master had not passed on; the others' blocks are all there.
  int held = 0;
  for (int number = 0; number < kBlocks; ++number) held += cache.Holds(number);
  EXPECT_GE(held, kBlocks / 2);
  ASSERT_TRUE(Eventually([&] { return cache->Stats().remote.backlog_bytes == 0; })) << "it is written to again";
  const CacheStats stats = cache->Stats();
  EXPECT_EQ(stats.remote.corrupt, 0u);
  EXPECT_GT(stats.remote.hits, 0u);
  EXPECT_EQ(stats.remote.breaker_opened, 0u) << "most of the cluster works";
}

}  // namespace
}  // namespace tidepool
