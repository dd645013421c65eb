#include "worker/kv/local_rows.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cacheservice/embedded/embedded_cache.h"
#include "tests/support/blocks.h"
#include "tests/support/eventually.h"
#include "tests/support/temp_dir.h"
#include "worker/kv/block_log.h"

namespace tidepool {
namespace {

// Passes blocks on to be stored when it is told to.
class LateCache final : public BlockCache {
 public:
  explicit LateCache(BlockCache* cache) : cache_(cache) {}
  void Deliver() {
    for (const auto& put : std::exchange(held_, {})) put();
  }
  void Offload(BlockId id, std::string value, OffloadOptions options, std::function<void(absl::Status)> done) override {
    held_.push_back([this, id, value = std::move(value), options, done = std::move(done)] {
      cache_->Offload(id, value, options, done);
    });
  }
  void Recall(std::vector<RowSelection> selections, absl::Time deadline,
              std::function<void(absl::StatusOr<RecalledRows>)> done) override {
    cache_->Recall(std::move(selections), deadline, std::move(done));
  }
  absl::StatusOr<PrefixHit> LookupPrefix(absl::Span<const BlockKey> chain, const ReadTerms& terms) override {
    return cache_->LookupPrefix(chain, terms);
  }
  absl::StatusOr<std::vector<std::optional<std::string>>> FetchBlocks(absl::Span<const BlockId> ids,
                                                                      const ReadTerms& terms) override {
    return cache_->FetchBlocks(ids, terms);
  }
  BlockCacheStats Stats() const override { return cache_->Stats(); }

 private:
  BlockCache* const cache_;
  std::vector<std::function<void()>> held_;
};

class LocalRowsTest : public testing::Test {
 protected:
  LocalRowsTest() {
    CacheOptions options;
    options.data_dir = dir_.path();
    stored_ = *EmbeddedCache::Open(options, test::SmallLayout());
    late_ = std::make_unique<LateCache>(stored_.get());
    log_ = std::make_unique<BlockLog>(test::SmallLayout(), BlockLogOptions{.tenant_salt = "salt"}, late_.get());
  }
  static std::string RowOf(int layer, int kv_head, int position) {
    return std::string(test::SmallLayout().row_bytes(), static_cast<char>(layer * 37 + kv_head * 11 + position));
  }
  void Append(int tokens) {
    while (tokens > 0) {
      const int count = std::min(tokens, log_->room_in_tail()), first = log_->tokens();
      log_->Append(std::vector<int32_t>(count, 5), /*exact=*/true, [&](int layer, int kv_head, char* out) {
        for (int i = 0; i < count; ++i) {
          const std::string row = RowOf(layer, kv_head, first + i);
          std::memcpy(out + i * row.size(), row.data(), row.size());
        }
      });
      tokens -= count;
    }
  }
  void WaitUntilStored() {
    ASSERT_TRUE(test::Eventually([&] { return log_->pending() == 0; }));
  }
  static std::string Found(LocalRows& rows, int32_t position) {
    const char* row = rows.Find(position);
    return row == nullptr ? "" : std::string(row, test::SmallLayout().row_bytes());
  }

  test::TempDir dir_;
  std::unique_ptr<EmbeddedCache> stored_;
  std::unique_ptr<LateCache> late_;
  std::unique_ptr<BlockLog> log_;
};

TEST_F(LocalRowsTest, RowsOfTheTailAreHereAndStoredOnesAreNot) {
  Append(70);
  late_->Deliver();
  WaitUntilStored();
  LocalRows rows;
  rows.Begin(*log_, 2, 1);
  EXPECT_EQ(Found(rows, 66), RowOf(2, 1, 66));
  EXPECT_EQ(rows.Find(70), nullptr) << "not there yet";
  EXPECT_EQ(rows.Find(3), nullptr) << "stored and acknowledged";
  EXPECT_EQ(rows.Find(130), nullptr) << "beyond the tail";
}

TEST_F(LocalRowsTest, RowsOfBlocksThatAreNotAcknowledgedAreHereForEveryHead) {
  Append(2 * kBlockTokens + 5);
  LocalRows rows;
  for (int layer = 0; layer < 3; ++layer) {
    for (int kv_head = 0; kv_head < 2; ++kv_head) {
      rows.Begin(*log_, layer, kv_head);
      for (int32_t position : {127, 0, 63, 64, 132, 3}) {
        EXPECT_EQ(Found(rows, position), RowOf(layer, kv_head, position)) << position;
      }
    }
  }
}

TEST_F(LocalRowsTest, WhatWasFoundStaysWhenItIsAcknowledged) {
  Append(kBlockTokens + 1);
  LocalRows rows;
  rows.Begin(*log_, 1, 0);
  const char* row = rows.Find(7);
  ASSERT_NE(row, nullptr);
  late_->Deliver();
  WaitUntilStored();
  EXPECT_EQ(std::string(row, test::SmallLayout().row_bytes()), RowOf(1, 0, 7));
  EXPECT_EQ(rows.Find(8), row + test::SmallLayout().row_bytes()) << "its block is held";
  rows.Begin(*log_, 1, 0);
  EXPECT_EQ(rows.Find(7), nullptr) << "let go, and asked of the service from now on";
}

}  // namespace
}  // namespace tidepool
