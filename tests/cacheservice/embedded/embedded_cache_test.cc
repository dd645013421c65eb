#include "cacheservice/embedded/embedded_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/checksum.h"
#include "cacheservice/embedded/cache_storage.h"
#include "policies/kv/block_codec.h"
#include "tests/support/blocks.h"
#include "tests/support/temp_dir.h"

namespace tidepool {
namespace {

using test::NumberedKey;
using test::NumberedValue;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr absl::Time kNever = absl::InfiniteFuture();

class EmbeddedCacheTest : public testing::Test {
 protected:
  EmbeddedCacheTest() {
    options_.data_dir = dir_.path();
    options_.memory_bytes = uint64_t{256} << 10;
    options_.disk_bytes = uint64_t{16} << 20;
    options_.manifest_bytes = uint64_t{1} << 20;
    options_.write_behind_bytes = uint64_t{256} << 10;
    Open();
  }
  void Open() {
    auto cache = EmbeddedCache::Open(options_, test::SmallLayout());
    ASSERT_TRUE(cache.ok()) << cache.status();
    cache_ = *std::move(cache);
  }
  void Reopen() {
    cache_.reset();
    Open();
  }
  std::future<absl::Status> Offload(BlockId id, std::string value, bool durable = false) {
    auto promise = std::make_shared<std::promise<absl::Status>>();
    cache_->Offload(id, std::move(value), {durable},
                    [promise](absl::Status status) { promise->set_value(std::move(status)); });
    return promise->get_future();
  }
  std::future<absl::Status> Offload(int number, int layer, bool durable = false) {
    return Offload({NumberedKey(number), layer}, NumberedValue(number, layer), durable);
  }
  absl::StatusOr<RecalledRows> Recall(std::vector<RowSelection> selections, absl::Time deadline = kNever) {
    std::promise<absl::StatusOr<RecalledRows>> promise;
    cache_->Recall(std::move(selections), deadline,
                   [&promise](absl::StatusOr<RecalledRows> rows) { promise.set_value(std::move(rows)); });
    return promise.get_future().get();
  }
  std::optional<std::string> Fetch(const BlockId& id) {
    const auto values = cache_->FetchBlocks({&id, 1}, kNever);
    EXPECT_TRUE(values.ok()) << values.status();
    return values.ok() ? (*values)[0] : std::nullopt;
  }

  const test::TempDir dir_;
  CacheOptions options_;
  std::unique_ptr<EmbeddedCache> cache_;
};

TEST_F(EmbeddedCacheTest, WhatIsOffloadedComesBackBitForBitAndIsCounted) {
  std::vector<std::future<absl::Status>> done;
  for (int number = 0; number < 30; ++number) {  // more than memory holds
    for (int layer = 0; layer < 3; ++layer) done.push_back(Offload(number, layer, number % 2 == 0));
  }
  for (std::future<absl::Status>& status : done) EXPECT_EQ(status.get(), absl::OkStatus());
  for (int number = 0; number < 30; ++number) {
    EXPECT_EQ(Fetch({NumberedKey(number), number % 3}), NumberedValue(number, number % 3));
  }
  EXPECT_EQ(Fetch({NumberedKey(99), 0}), std::nullopt);
  const BlockCacheStats stats = cache_->Stats();
  EXPECT_EQ(stats.offloaded_blocks, 90);
  EXPECT_EQ(stats.offloaded_bytes, 90 * static_cast<int64_t>(NumberedValue(0, 0).size()));
  EXPECT_EQ(stats.offload_failures, 0);
  EXPECT_EQ(stats.fetched_blocks, 30);
  EXPECT_EQ(stats.fetched_bytes, 30 * static_cast<int64_t>(NumberedValue(0, 0).size()));
  EXPECT_EQ(stats.reconnects, 0);
}

TEST_F(EmbeddedCacheTest, ALookupFindsTheLongestChainWithAllLayers) {
  for (int number = 0; number < 10; ++number) {
    for (int layer = 0; layer < 3; ++layer) {
      if (number == 6 && layer == 1) continue;
      ASSERT_TRUE(Offload(number, layer).get().ok());
    }
  }
  std::vector<BlockKey> chain;
  for (int number = 0; number < 12; ++number) chain.push_back(NumberedKey(number));
  EXPECT_EQ(cache_->LookupPrefix(chain, kNever)->blocks, 6);
  ASSERT_TRUE(Offload(6, 1).get().ok());
  EXPECT_EQ(cache_->LookupPrefix(chain, kNever)->blocks, 10);
  EXPECT_EQ(cache_->LookupPrefix({}, kNever)->blocks, 0);
  chain.insert(chain.begin(), NumberedKey(99));
  EXPECT_EQ(cache_->LookupPrefix(chain, kNever)->blocks, 0) << "the first is missing";
}

// Promise P6: the same tokens of another tenant have other keys, and nothing else leads to a block.
TEST_F(EmbeddedCacheTest, TheSameTokensOfAnotherTenantAreNotFound) {
  const std::vector<int32_t> tokens(kBlockTokens, 5);
  const auto key_of = [&tokens](std::string_view salt) {
    return ChildBlockKey(salt, test::SmallLayout(), kExactLineage, BlockKey{}, tokens);
  };
  for (int layer = 0; layer < 3; ++layer) {
    ASSERT_TRUE(Offload({key_of("acme"), layer}, NumberedValue(1, layer)).get().ok());
  }
  EXPECT_EQ(cache_->LookupPrefix(std::vector<BlockKey>{key_of("acme")}, kNever)->blocks, 1);
  EXPECT_EQ(cache_->LookupPrefix(std::vector<BlockKey>{key_of("other")}, kNever)->blocks, 0);
  EXPECT_EQ(Fetch({key_of("other"), 0}), std::nullopt);
  EXPECT_THAT(Recall({{{key_of("other"), 0}, 0, 1}})->found, ElementsAre(0u));
}

TEST_F(EmbeddedCacheTest, ARecallGivesRowsInOrderAndNamesTheMissing) {
  ASSERT_TRUE(Offload(1, 0, true).get().ok());
  const auto rows = Recall({{{NumberedKey(2), 0}, 0, 3}, {{NumberedKey(1), 0}, 1, 0x11}});
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_THAT(rows->found, ElementsAre(0u, 0x11u));
  const std::string value = NumberedValue(1, 0);
  const BlockView view = *BlockView::Parse(value);
  EXPECT_EQ(rows->rows, std::string(view.Row(1, 0)) + std::string(view.Row(1, 4)));
  EXPECT_THAT(rows->row_checksums, ElementsAre(Checksum32(view.Row(1, 0)), Checksum32(view.Row(1, 4))));
  const BlockCacheStats stats = cache_->Stats();
  EXPECT_EQ(stats.recalled_rows, 2);
  EXPECT_EQ(stats.recalled_bytes, static_cast<int64_t>(rows->rows.size()));
  EXPECT_EQ(stats.missing_rows, 2);
}

TEST_F(EmbeddedCacheTest, ARecallOfWhatWasDroppedIsAMiss) {
  constexpr int kNumbers = 800;  // three layers each: 21 MB through a tier of 16 MiB
  std::vector<std::future<absl::Status>> done;
  for (int number = 0; number < kNumbers; ++number) {
    for (int layer = 0; layer < 3; ++layer) done.push_back(Offload(number, layer));
  }
  for (std::future<absl::Status>& status : done) ASSERT_TRUE(status.get().ok());
  ASSERT_GT(cache_->blocks()->Stats().disk.evictions, 0u);
  const auto rows = Recall({{{NumberedKey(0), 0}, 0, 7}, {{NumberedKey(kNumbers - 1), 0}, 0, 7}});
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_THAT(rows->found, ElementsAre(0u, 7u));
  EXPECT_EQ(cache_->Stats().missing_rows, 3);
  EXPECT_EQ(cache_->LookupPrefix(std::vector<BlockKey>{NumberedKey(0)}, kNever)->blocks, 0);
  EXPECT_EQ(cache_->blocks()->Stats().disk.corrupt, 0u);
}

TEST_F(EmbeddedCacheTest, ARecallPastItsDeadlineFromDiskIsDeadlineExceeded) {
  ASSERT_TRUE(Offload(1, 0, true).get().ok());
  Reopen();
  EXPECT_EQ(Recall({{{NumberedKey(1), 0}, 0, 1}}, absl::InfinitePast()).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(Recall({{{NumberedKey(1), 0}, 0, 1}}).ok());
}

TEST_F(EmbeddedCacheTest, BlocksOfAnotherModelAreRefusedByField) {
  struct Case {
    std::string field;
    KvLayout layout;
  };
  std::vector<Case> cases(3, {"", test::SmallLayout()});
  cases[0].field = "kv_heads", cases[0].layout.kv_heads = 3;
  cases[1].field = "head_dim", cases[1].layout.head_dim = 8;
  cases[2].field = "type", cases[2].layout.type = KvType::kF32;
  for (const Case& one : cases) {
    const absl::Status status = Offload({NumberedKey(1), 0}, BlockBuilder(one.layout, 0, 0, 4).Finish()).get();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(one.field));
  }
  const absl::Status layer = Offload({NumberedKey(1), 3}, BlockBuilder(test::SmallLayout(), 3, 0, 4).Finish()).get();
  EXPECT_EQ(layer.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(layer.message()), HasSubstr("layer is 3"));
  EXPECT_EQ(Offload({NumberedKey(1), 1}, NumberedValue(1, 0)).get().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Offload({NumberedKey(1), 0}, "bytes").get().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(cache_->Stats().offload_failures, 6);
  EXPECT_EQ(cache_->Stats().offloaded_blocks, 0);
  EXPECT_EQ(Fetch({NumberedKey(1), 0}), std::nullopt);
}

TEST_F(EmbeddedCacheTest, ABlockLargerThanTheWriteBehindBufferStillGoesThrough) {
  KvLayout wide = test::SmallLayout();
  wide.head_dim = 1024;  // 524 KB a block, the buffer holds 256 KiB
  cache_.reset();
  cache_ = *EmbeddedCache::Open(options_, wide);
  for (int layer = 0; layer < 3; ++layer) {
    const std::string value = BlockBuilder(wide, layer, 0, kBlockTokens).Finish();
    EXPECT_EQ(Offload({NumberedKey(1), layer}, value).get(), absl::OkStatus());
    EXPECT_EQ(Fetch({NumberedKey(1), layer}), value);
  }
}

TEST_F(EmbeddedCacheTest, ARepeatedOffloadIsAcknowledgedAndStoredOnce) {
  for (int repeat = 0; repeat < 3; ++repeat) ASSERT_TRUE(Offload(1, 0, true).get().ok());
  EXPECT_EQ(cache_->blocks()->Stats().disk.objects, 1u);
  EXPECT_EQ(cache_->blocks()->Stats().memory.objects, 1u);
}

TEST_F(EmbeddedCacheTest, ClosingStoresWhatWasOffloadedAndCallsEveryDoneOnce) {
  constexpr int kBlocks = 50;
  std::atomic<int> stored{0}, answered{0};
  for (int number = 0; number < kBlocks; ++number) {
    cache_->Offload({NumberedKey(number), 0}, NumberedValue(number, 0), {number % 2 == 0},
                    [&stored](const absl::Status& status) { stored += status.ok(); });
    cache_->Recall({{{NumberedKey(number), 0}, 0, 1}}, kNever,
                   [&answered](const absl::StatusOr<RecalledRows>& rows) { answered += rows.ok(); });
  }
  cache_.reset();
  EXPECT_EQ(stored, kBlocks);
  EXPECT_EQ(answered, kBlocks);
  Open();
  for (int number = 0; number < kBlocks; ++number) {
    EXPECT_EQ(Fetch({NumberedKey(number), 0}), NumberedValue(number, 0)) << "an orderly end loses nothing";
  }
}

TEST_F(EmbeddedCacheTest, ManifestsShareTheDirectoryAndSurviveReopening) {
  SessionManifest manifest;
  manifest.tenant = "acme";
  manifest.session_id = "s1";
  manifest.model_fingerprint = "model";
  manifest.revision = 1;
  manifest.token_ids = {1, 2, 3};
  ASSERT_EQ(cache_->manifests()->Put(manifest, kNever), absl::OkStatus());
  ASSERT_TRUE(Offload(1, 0, true).get().ok());
  Reopen();
  const auto read = cache_->manifests()->Get("acme", "s1", kNever);
  ASSERT_TRUE(read.ok());
  EXPECT_EQ((*read)->token_ids, manifest.token_ids);
  EXPECT_EQ(cache_->disk_manifests()->Stats().sessions, 1);
  EXPECT_EQ(Fetch({NumberedKey(1), 0}), NumberedValue(1, 0));
}

TEST_F(EmbeddedCacheTest, ADirectoryInUseAndBadOptionsAreRefusedByName) {
  const auto second = EmbeddedCache::Open(options_, test::SmallLayout());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.status().message()), AllOf(HasSubstr(dir_.path()), HasSubstr("in use")));
  CacheOptions bad = options_;
  bad.recall_threads = 0;
  EXPECT_THAT(std::string(EmbeddedCache::Open(bad, test::SmallLayout()).status().message()),
              HasSubstr("recall_threads 0 is not in 1 to 64"));
}

TEST_F(EmbeddedCacheTest, ADirectoryOfAnotherFormatIsRefused) {
  cache_.reset();
  {
    DatabaseOptions options;
    options.data_dir = dir_.path();
    const Mutation mutation = {.family = Family::kMeta, .key = "format", .value = "99"};
    ASSERT_TRUE((*Database::Open(options))->Write({&mutation, 1}, Durability::kSynced).ok());
  }
  const auto refused = EmbeddedCache::Open(options_, test::SmallLayout());
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("format version 99"));
}

// Against a set of what was acknowledged: nothing else is ever found, and all of it is (the disk holds it all).
TEST_F(EmbeddedCacheTest, RandomSequencesAgreeWithASet) {
  for (unsigned seed = 0; seed < 3; ++seed) {
    std::mt19937 random(seed);
    std::set<std::pair<int, int>> model;
    const int base = 100 * static_cast<int>(seed);
    for (int step = 0; step < 300; ++step) {
      const int number = base + static_cast<int>(random() % 40), layer = static_cast<int>(random() % 3);
      switch (random() % 5) {
        case 0:
        case 1:
          ASSERT_TRUE(Offload(number, layer, random() % 2 == 0).get().ok());
          model.emplace(number, layer);
          break;
        case 2: {
          const auto value = Fetch({NumberedKey(number), layer});
          ASSERT_EQ(value.has_value(), model.contains({number, layer})) << "seed " << seed << " step " << step;
          if (value.has_value()) {
            ASSERT_EQ(*value, NumberedValue(number, layer));
          }
          break;
        }
        case 3: {
          std::vector<BlockKey> chain;
          int expected = 0;
          bool all = true;
          for (int i = 0; i < 5; ++i) {
            chain.push_back(NumberedKey(number + i));
            for (int l = 0; l < 3; ++l) all = all && model.contains({number + i, l});
            expected += all;
          }
          ASSERT_EQ(cache_->LookupPrefix(chain, kNever)->blocks, expected) << "seed " << seed << " step " << step;
          break;
        }
        default: {
          const uint64_t mask = random();
          const auto rows = Recall({{{NumberedKey(number), layer}, 1, mask}});
          ASSERT_TRUE(rows.ok());
          ASSERT_EQ(rows->found[0], model.contains({number, layer}) ? mask : 0);
          if (random() % 20 == 0) Reopen();
        }
      }
    }
  }
}

}  // namespace
}  // namespace tidepool
