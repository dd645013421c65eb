// The worker's end of the cache service against a real server over loopback.
#include "cacheservice/remote/remote_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "base/checksum.h"
#include "cacheservice/rpc/cache_server.h"
#include "tests/support/blocks.h"
#include "tests/support/temp_dir.h"

namespace tidepool {
namespace {

using test::NumberedKey;
using test::NumberedValue;
using testing::HasSubstr;

absl::Time Soon() { return absl::Now() + absl::Seconds(60); }

class RemoteCacheTest : public testing::Test {
 protected:
  RemoteCacheTest() { StartServer(); }

  void StartServer() {
    CacheServerOptions options;
    options.listen = "127.0.0.1:" + std::to_string(port_);
    options.cache.data_dir = dir_.path();
    options.cache.memory_bytes = 1 << 20;
    auto server = CacheServer::Start(options);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
    port_ = server_->port();
  }
  std::unique_ptr<RemoteCache> Connect(RemoteCacheOptions options = {}) {
    options.endpoint = "127.0.0.1:" + std::to_string(port_);
    options.layout = test::SmallLayout();
    return *RemoteCache::Connect(options);
  }
  static std::future<absl::Status> Offload(RemoteCache& cache, int number, int layer, bool durable = false) {
    auto promise = std::make_shared<std::promise<absl::Status>>();
    cache.Offload({NumberedKey(number), layer}, NumberedValue(number, layer), {durable},
                  [promise](absl::Status status) { promise->set_value(std::move(status)); });
    return promise->get_future();
  }
  static absl::StatusOr<RecalledRows> Recall(RemoteCache& cache, std::vector<RowSelection> selections,
                                             absl::Time deadline) {
    std::promise<absl::StatusOr<RecalledRows>> promise;
    cache.Recall(std::move(selections), deadline,
                 [&](absl::StatusOr<RecalledRows> rows) { promise.set_value(std::move(rows)); });
    return promise.get_future().get();
  }

  test::TempDir dir_;
  int port_ = 0;
  std::unique_ptr<CacheServer> server_;
};

TEST_F(RemoteCacheTest, WhatIsOffloadedComesBackBitForBit) {
  auto cache = Connect();
  std::vector<std::future<absl::Status>> done;
  for (int number = 0; number < 40; ++number) {  // more than the memory tier holds
    for (int layer = 0; layer < 3; ++layer) done.push_back(Offload(*cache, number, layer, number % 2 == 0));
  }
  for (std::future<absl::Status>& status : done) EXPECT_TRUE(status.get().ok());
  EXPECT_EQ(cache->Stats().offloaded_blocks, 120);

  std::vector<BlockKey> chain;
  for (int number = 0; number < 42; ++number) chain.push_back(NumberedKey(number));
  EXPECT_EQ(cache->LookupPrefix(chain, Soon())->blocks, 40);

  std::vector<BlockId> ids;
  for (int number = 0; number < 42; ++number) ids.push_back({NumberedKey(number), number % 3});
  const auto values = cache->FetchBlocks(ids, Soon());
  ASSERT_TRUE(values.ok()) << values.status();
  for (int number = 0; number < 40; ++number) EXPECT_EQ((*values)[number], NumberedValue(number, number % 3));
  EXPECT_FALSE((*values)[40].has_value());
  EXPECT_FALSE((*values)[41].has_value());

  std::vector<RowSelection> selections;
  for (int number = 0; number < 41; ++number)
    selections.push_back({{NumberedKey(number), 1}, number % 2, 0x8000000000000101u << (number % 5)});
  const auto rows = Recall(*cache, selections, Soon());
  ASSERT_TRUE(rows.ok()) << rows.status();
  size_t next = 0;
  const size_t row_bytes = test::SmallLayout().row_bytes();
  for (int number = 0; number < 40; ++number) {
    EXPECT_EQ(rows->found[number], selections[number].row_mask);
    const std::string value = NumberedValue(number, 1);
    const BlockView view = *BlockView::Parse(value);
    for (int token = 0; token < kBlockTokens; ++token) {
      if ((selections[number].row_mask >> token & 1) == 0) continue;
      const std::string_view row = std::string_view(rows->rows).substr(next * row_bytes, row_bytes);
      EXPECT_EQ(row, view.Row(number % 2, token));
      EXPECT_EQ(rows->row_checksums[next], Checksum32(row));
      ++next;
    }
  }
  EXPECT_EQ(rows->found[40], 0u);
  EXPECT_EQ(rows->row_checksums.size(), next);
}

// Two reads tell what the disk takes; the caller computes faster than any disk reads.
TEST_F(RemoteCacheTest, ATierThatIsSlowerThanComputingIsLeftOut) {
  auto cache = Connect();
  constexpr int kBlocks = 5;
  std::vector<BlockKey> chain;
  for (int number = 0; number < kBlocks; ++number) {
    for (int layer = 0; layer < 3; ++layer) {
      ASSERT_TRUE(Offload(*cache, number, layer, /*durable=*/true).get().ok());
    }
    chain.push_back(NumberedKey(number));
  }
  server_.reset();
  StartServer();  // all is on disk only
  const ReadTerms terms(Soon(), 1e15);
  for (int number = 0; number < 2; ++number) {
    const auto values = cache->FetchBlocks(std::vector<BlockId>{{chain[number], 0}}, terms);
    ASSERT_TRUE(values.ok()) << values.status();
    EXPECT_EQ((*values)[0], NumberedValue(number, 0));
  }
  chain.push_back(NumberedKey(99));
  const auto hit = cache->LookupPrefix(chain, terms);
  ASSERT_TRUE(hit.ok()) << hit.status();
  EXPECT_EQ(hit->blocks, 0);
  EXPECT_EQ(hit->slow_blocks, kBlocks);
  EXPECT_EQ(cache->LookupPrefix(chain, Soon())->blocks, kBlocks);
  using Stored = RemoteCache::Stored;
  std::vector<Stored> expected(kBlocks, Stored::kSlow);
  expected.push_back(Stored::kNo);
  EXPECT_EQ(*cache->LookupEach(chain, terms), expected);
  const std::vector<BlockId> last = {{chain[kBlocks - 1], 1}};
  EXPECT_FALSE((*cache->FetchBlocks(last, terms))[0].has_value());
  EXPECT_EQ((*cache->FetchBlocks(last, Soon()))[0], NumberedValue(kBlocks - 1, 1)) << "a session";
}

TEST_F(RemoteCacheTest, ALargeRecallComesInPartsAndWhole) {
  auto cache = Connect();
  for (int number = 0; number < 30; ++number) ASSERT_TRUE(Offload(*cache, number, 0).get().ok());
  std::vector<RowSelection> selections;
  for (int repeat = 0; repeat < 5; ++repeat) {
    for (int number = 0; number < 30; ++number) {
      for (int head = 0; head < 2; ++head) selections.push_back({{NumberedKey(number), 0}, head, ~uint64_t{0}});
    }
  }
  const auto rows = Recall(*cache, selections, Soon());  // 1.2 MB: several messages
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_EQ(rows->row_checksums.size(), selections.size() * kBlockTokens);
  EXPECT_EQ(rows->rows.size(), rows->row_checksums.size() * test::SmallLayout().row_bytes());
  for (size_t i = 0; i < rows->row_checksums.size(); ++i) {
    ASSERT_EQ(Checksum32(std::string_view(rows->rows).substr(i * 64, 64)), rows->row_checksums[i]);
  }
}

TEST_F(RemoteCacheTest, BlocksOfferedWhileTheServiceIsAwayAreStoredWhenItIsBack) {
  auto cache = Connect();
  ASSERT_TRUE(Offload(*cache, 1, 0, true).get().ok());
  server_.reset();
  std::vector<std::future<absl::Status>> done;
  for (int number = 2; number < 20; ++number) done.push_back(Offload(*cache, number, 0, true));
  StartServer();
  for (std::future<absl::Status>& status : done) EXPECT_TRUE(status.get().ok());
  const auto values = cache->FetchBlocks(std::vector<BlockId>{{NumberedKey(1), 0}, {NumberedKey(19), 0}}, Soon());
  ASSERT_TRUE(values.ok());
  EXPECT_EQ((*values)[0], NumberedValue(1, 0));
  EXPECT_EQ((*values)[1], NumberedValue(19, 0));
  EXPECT_GE(cache->Stats().reconnects, 1);
}

// Each may find the stream being written to, resting, broken or not there yet.
TEST_F(RemoteCacheTest, RecallsOfManyThreadsAreAllAnsweredAlsoWhileTheStreamBreaks) {
  auto cache = Connect();
  ASSERT_TRUE(Offload(*cache, 1, 0, /*durable=*/true).get().ok());
  constexpr int kThreads = 4, kRecalls = 200;
  std::atomic<int> whole{0}, refused{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < kRecalls; ++i) {
        const auto rows = Recall(*cache, {{{NumberedKey(1), 0}, i % 2, 0b101}}, Soon());
        (rows.ok() && rows->row_checksums.size() == 2 ? whole : refused) += 1;
      }
    });
  }
  while (whole < kThreads * kRecalls / 4) std::this_thread::yield();
  cache->Interrupt();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(whole + refused, kThreads * kRecalls);
  EXPECT_TRUE(Recall(*cache, {{{NumberedKey(1), 0}, 0, 1}}, Soon()).ok());
}

TEST_F(RemoteCacheTest, ARecallWaitsForTheServiceAsLongAsItsDeadlineAllows) {
  auto cache = Connect();
  ASSERT_TRUE(Offload(*cache, 1, 0, true).get().ok());
  ASSERT_TRUE(Recall(*cache, {{{NumberedKey(1), 0}, 0, 1}}, Soon()).ok());
  server_.reset();
  EXPECT_EQ(Recall(*cache, {{{NumberedKey(1), 0}, 0, 1}}, absl::Now() + absl::Milliseconds(50)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  StartServer();
  const auto rows = Recall(*cache, {{{NumberedKey(1), 0}, 0, 1}}, Soon());
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_EQ(rows->found[0], 1u);
}

TEST_F(RemoteCacheTest, AServiceThatStaysAwayFailsRecallsAtOnceAndBlocksInTheEnd) {
  RemoteCacheOptions options;
  options.recall_patience = absl::Milliseconds(50);
  options.offload_patience = absl::Milliseconds(50);
  auto cache = Connect(options);
  server_.reset();
  EXPECT_EQ(Offload(*cache, 1, 0).get().code(), absl::StatusCode::kUnavailable);
  // The first one finds out; then there is no waiting, however far the deadline.
  absl::Status status;
  do {
    status = Recall(*cache, {{{NumberedKey(1), 0}, 0, 1}}, Soon()).status();
  } while (status.code() != absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("cannot be reached"));
  EXPECT_FALSE(cache->LookupPrefix(std::vector<BlockKey>{NumberedKey(1)}, Soon()).ok());
}

TEST_F(RemoteCacheTest, ManifestsAreStoredByRevision) {
  auto cache = Connect();
  SessionManifest manifest;
  manifest.tenant = "default";
  manifest.session_id = "s";
  manifest.model_fingerprint = "f";
  manifest.revision = 1;
  manifest.token_ids.assign(1000, 7);
  manifest.block_keys = {NumberedKey(1), NumberedKey(2)};
  manifest.preset = "snapkv";
  manifest.engine_state.assign(3'000'000, 'x');  // several frames
  ASSERT_TRUE(cache->Put(manifest, Soon()).ok());
  EXPECT_EQ(cache->Put(manifest, Soon()).code(), absl::StatusCode::kAborted);
  auto read = cache->Get("default", "s", Soon());
  ASSERT_TRUE(read.ok() && read->has_value()) << read.status();
  EXPECT_GT((*read)->updated_unix_ms, 0);
  (*read)->updated_unix_ms = 0;
  EXPECT_EQ(**read, manifest);
  EXPECT_FALSE((*cache->Get("other", "s", Soon())).has_value()) << "another tenant's";
  server_.reset();
  StartServer();
  EXPECT_TRUE((*cache->Get("default", "s", Soon())).has_value()) << "after a restart";
  ASSERT_TRUE(cache->Delete("default", "s", Soon()).ok());
  EXPECT_FALSE((*cache->Get("default", "s", Soon())).has_value());
  EXPECT_TRUE(cache->Delete("default", "s", Soon()).ok());
}

TEST_F(RemoteCacheTest, AnotherLayoutOfTheSameModelIsRefusedByField) {
  auto cache = Connect();
  ASSERT_TRUE(Offload(*cache, 1, 0).get().ok());
  RemoteCacheOptions options;
  options.endpoint = "127.0.0.1:" + std::to_string(port_);
  options.layout = test::SmallLayout();
  options.layout.head_dim = 32;
  options.offload_patience = absl::Milliseconds(100);
  auto other = *RemoteCache::Connect(options);
  const absl::Status refused = Offload(*other, 2, 0).get();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("hello.shape.head_dim"));
  const absl::Status recall = Recall(*other, {{{NumberedKey(1), 0}, 0, 1}}, Soon()).status();
  EXPECT_EQ(recall.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(recall.message()), HasSubstr("hello.shape.head_dim"));
  EXPECT_TRUE(Offload(*cache, 3, 0).get().ok()) << "the service lives on";
}

TEST_F(RemoteCacheTest, ValuesThatNoServiceTakesFailAtOnceAndOthersGoOn) {
  auto cache = Connect();
  auto offer = [&](int layer, std::string value) {
    std::promise<absl::Status> promise;
    cache->Offload({NumberedKey(1), layer}, std::move(value), {},
                   [&](absl::Status status) { promise.set_value(std::move(status)); });
    return promise.get_future().get().code();
  };
  EXPECT_EQ(offer(0, ""), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(offer(0, std::string((8 << 20) + 1, 'x')), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(offer(3, NumberedValue(1, 0)), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(offer(-1, NumberedValue(1, 0)), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(offer(0, "no block"), absl::StatusCode::kOk) << "the service says so";
  EXPECT_NE(offer(0, NumberedValue(1, 2)), absl::StatusCode::kOk) << "of another layer than its id";
  EXPECT_EQ(offer(0, NumberedValue(1, 0)), absl::StatusCode::kOk);
  EXPECT_EQ(cache->Stats().reconnects, 0);
  EXPECT_EQ(cache->Stats().offload_failures, 6);
}

TEST_F(RemoteCacheTest, ARecallThatIsTooLargeForOneRequestComesWhole) {
  auto cache = Connect();
  ASSERT_TRUE(Offload(*cache, 1, 0).get().ok());
  std::vector<RowSelection> selections;
  for (int i = 0; i < 70'000; ++i) selections.push_back({{NumberedKey(1), 0}, i % 2, uint64_t{1} << (i % 64)});
  const auto rows = Recall(*cache, selections, Soon());
  ASSERT_TRUE(rows.ok()) << rows.status();
  ASSERT_EQ(rows->found.size(), selections.size());
  const std::string value = NumberedValue(1, 0);
  const BlockView view = *BlockView::Parse(value);
  const size_t row_bytes = test::SmallLayout().row_bytes();
  for (size_t i = 0; i < selections.size(); ++i) {
    ASSERT_EQ(rows->found[i], selections[i].row_mask) << i;
    ASSERT_EQ(std::string_view(rows->rows).substr(i * row_bytes, row_bytes),
              view.Row(static_cast<int>(i % 2), static_cast<int>(i % 64)))
        << i;
  }
  EXPECT_EQ(cache->Stats().reconnects, 0);
}

TEST_F(RemoteCacheTest, AUnixSocketServesLikeAPort) {
  test::TempDir dir;
  CacheServerOptions server_options;
  server_options.listen = "unix:" + dir.File("socket");
  server_options.cache.data_dir = dir.File("data");
  auto server = CacheServer::Start(server_options);
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_EQ((*server)->address(), server_options.listen);
  RemoteCacheOptions options;
  options.endpoint = server_options.listen;
  options.layout = test::SmallLayout();
  auto cache = *RemoteCache::Connect(options);
  ASSERT_TRUE(Offload(*cache, 1, 0).get().ok());
  EXPECT_EQ((*cache->FetchBlocks(std::vector<BlockId>{{NumberedKey(1), 0}}, Soon()))[0], NumberedValue(1, 0));
}

TEST_F(RemoteCacheTest, KeysThatAreNoChainAreLookedUpEachByItself) {
  auto cache = Connect();
  for (const int number : {1, 2, 5}) {
    for (int layer = 0; layer < 3; ++layer) ASSERT_TRUE(Offload(*cache, number, layer).get().ok());
  }
  ASSERT_TRUE(Offload(*cache, 3, 0).get().ok());  // not in all layers
  std::vector<BlockKey> keys;
  for (int number = 0; number < 6; ++number) keys.push_back(NumberedKey(number));
  constexpr auto kNo = RemoteCache::Stored::kNo, kYes = RemoteCache::Stored::kYes;
  EXPECT_THAT(*cache->LookupEach(keys, Soon()), testing::ElementsAre(kNo, kYes, kYes, kNo, kNo, kYes));
  EXPECT_EQ(cache->LookupPrefix(keys, Soon())->blocks, 0);
}

TEST_F(RemoteCacheTest, WhatIsNotStoredComesBackToWhoMayStoreItElsewhere) {
  RemoteCacheOptions options;
  options.wait_for_service = false;
  auto cache = Connect(options);
  ASSERT_TRUE(Offload(*cache, 0, 0).get().ok());
  server_->Shutdown(absl::ZeroDuration());
  server_.reset();
  std::vector<std::future<std::string>> returned;
  for (int number = 1; number < 20; ++number) {
    auto promise = std::make_shared<std::promise<std::string>>();
    returned.push_back(promise->get_future());
    cache->OffloadOrReturn({NumberedKey(number), 0}, NumberedValue(number, 0), {}, /*now=*/false,
                           [promise](const absl::Status& status, std::string value) {
                             EXPECT_TRUE(absl::IsUnavailable(status)) << status;
                             promise->set_value(std::move(value));
                           });
  }
  EXPECT_TRUE(absl::IsUnavailable(cache->Probe(Soon()).status()));
  EXPECT_TRUE(absl::IsUnavailable(cache->Get("default", "s", Soon()).status()));  // does not wait for it
  cache->Interrupt();
  for (int number = 1; number < 20; ++number) EXPECT_EQ(returned[number - 1].get(), NumberedValue(number, 0));
  StartServer();
  cache->Resume();
  EXPECT_TRUE(Offload(*cache, 1, 0).get().ok());
}

TEST_F(RemoteCacheTest, ACallThatIsGivenUpIsUnavailable) {
  auto cache = Connect();
  server_.reset();
  auto got = std::async(std::launch::async, [&] { return cache->Get("default", "s", Soon()).status(); });
  while (got.wait_for(std::chrono::milliseconds(1)) != std::future_status::ready) cache->Interrupt();  // it may not run
  const absl::Status status = got.get();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
}

TEST_F(RemoteCacheTest, APodKeepsItsNameOverARestart) {
  auto cache = Connect();
  const std::string name = cache->Probe(Soon())->name;
  EXPECT_THAT(name, testing::StartsWith("pod-"));
  server_.reset();
  StartServer();
  absl::StatusOr<PodIdentity> again = cache->Probe(Soon());
  while (!again.ok()) again = cache->Probe(Soon());  // the connection comes back by itself
  EXPECT_EQ(again->name, name);
  EXPECT_FALSE(again->draining);
}

TEST_F(RemoteCacheTest, BlocksOfAnyShapeAreTakenFromWhoHandsThemOn) {
  RemoteCacheOptions options;
  options.endpoint = "127.0.0.1:" + std::to_string(port_);
  options.any_shape = true;
  options.layout.layers = 1024;
  auto cache = *RemoteCache::Connect(options);
  KvLayout other = test::SmallLayout();
  other.model_fingerprint = "another model";
  other.head_dim = 8;
  const std::string value = [&other] {
    BlockBuilder builder(other, 7, 0, kBlockTokens);
    for (int head = 0; head < other.kv_heads; ++head) {
      for (int token = 0; token < kBlockTokens; ++token)
        std::fill_n(builder.MutableRow(head, token), other.row_bytes(), 'x');
    }
    return std::move(builder).Finish();
  }();
  std::promise<absl::Status> stored, refused;
  cache->Offload({NumberedKey(100), 7}, value, {}, [&](absl::Status status) { stored.set_value(std::move(status)); });
  EXPECT_TRUE(stored.get_future().get().ok());
  EXPECT_TRUE(Offload(*cache, 1, 0).get().ok());
  cache->Offload({NumberedKey(101), 0}, "no block", {},
                 [&](absl::Status status) { refused.set_value(std::move(status)); });
  EXPECT_FALSE(refused.get_future().get().ok());
  EXPECT_EQ((*cache->FetchBlocks(std::vector<BlockId>{{NumberedKey(100), 7}}, Soon()))[0], value);
}

TEST(RemoteCacheOptionsTest, BadOnesAreRefusedByName) {
  RemoteCacheOptions options;
  options.layout = test::SmallLayout();
  EXPECT_THAT(std::string(RemoteCache::Connect(options).status().message()), HasSubstr("endpoint"));
  options.endpoint = "127.0.0.1:1";
  options.tenant = "";
  EXPECT_THAT(std::string(RemoteCache::Connect(options).status().message()), HasSubstr("tenant"));
  options.tenant = "t";
  options.write_behind_bytes = 5;
  EXPECT_THAT(std::string(RemoteCache::Connect(options).status().message()), HasSubstr("write_behind_bytes"));
}

}  // namespace
}  // namespace tidepool
