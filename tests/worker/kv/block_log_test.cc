#include "worker/kv/block_log.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "base/mutex.h"
#include "cacheservice/embedded/embedded_cache.h"
#include "policies/kv/block_codec.h"
#include "tests/support/blocks.h"
#include "tests/support/temp_dir.h"

namespace tidepool {
namespace {

// Row bytes that tell their place.
void FillRow(int layer, int kv_head, int position, char* row) {
  std::memset(row, layer * 37 + kv_head * 11 + position, test::SmallLayout().row_bytes());
}

class BlockLogTest : public testing::Test {
 protected:
  BlockLogTest() {
    CacheOptions options;
    options.data_dir = dir_.path();
    cache_ = *EmbeddedCache::Open(options, test::SmallLayout());
  }
  std::unique_ptr<BlockLog> MakeLog() {
    BlockLogOptions options;
    options.tenant_salt = "salt";
    options.session_lineage = "snapkv/nonce";
    auto log = std::make_unique<BlockLog>(test::SmallLayout(), options, cache_.get());
    log->set_on_idle([this] {
      MutexLock lock(&mutex_);
      idle_.SignalAll();
    });
    return log;
  }
  static void Append(BlockLog& log, int tokens, bool exact) {
    while (tokens > 0) {
      const int count = std::min(tokens, log.room_in_tail());
      const int first = log.tokens();
      log.Append(std::vector<int32_t>(count, 5), exact, [&](int layer, int kv_head, char* out) {
        for (int i = 0; i < count; ++i) FillRow(layer, kv_head, first + i, out + i * test::SmallLayout().row_bytes());
      });
      tokens -= count;
    }
  }
  void WaitUntilIdle(const BlockLog& log) {
    while (log.pending() > 0) {  // asked without our mutex, which on_idle takes under the log's
      MutexLock lock(&mutex_);
      idle_.WaitUntil(&mutex_, std::chrono::steady_clock::now() + std::chrono::milliseconds(20));
    }
  }

  test::TempDir dir_;
  std::unique_ptr<EmbeddedCache> cache_;
  Mutex mutex_;
  CondVar idle_;
};

TEST_F(BlockLogTest, StoresEveryBlockInEveryLayerAndTheTailWhenAsked) {
  auto log = MakeLog();
  Append(*log, 150, true);
  EXPECT_EQ(log->full_blocks(), 2);
  EXPECT_EQ(log->tail_tokens(), 22);
  log->StoreTail();
  WaitUntilIdle(*log);
  EXPECT_EQ(log->failed_blocks(), 0);
  std::vector<BlockId> ids;
  for (int layer = 0; layer < 3; ++layer) {
    ids.push_back({log->keys()[0], layer});
    ids.push_back({log->keys()[1], layer});
    ids.push_back({log->TailKey(), layer});
  }
  const auto values = *cache_->FetchBlocks(ids, absl::InfiniteFuture());
  for (size_t i = 0; i < ids.size(); ++i) {
    ASSERT_TRUE(values[i].has_value());
    const BlockView view = *BlockView::Parse(*values[i]);
    EXPECT_TRUE(view.VerifyRows().ok());
    EXPECT_EQ(view.tokens(), i % 3 == 2 ? 22 : 64);
    std::string row(test::SmallLayout().row_bytes(), '\0');
    for (int token = 0; token < view.tokens(); ++token) {
      FillRow(ids[i].layer, 1, view.first_position() + token, row.data());
      ASSERT_EQ(view.Row(1, token), row);
    }
  }
}

TEST_F(BlockLogTest, ExactBlocksAreSharedAndOthersAreTheSessionsOwn) {
  auto a = MakeLog();
  auto b = MakeLog();
  BlockLogOptions other;
  other.tenant_salt = "salt";
  other.session_lineage = "snapkv/another nonce";
  BlockLog c(test::SmallLayout(), other, nullptr);
  Append(*a, 128, true);
  Append(*b, 64, true);
  Append(*b, 64, false);  // computed after a compression
  Append(c, 64, true);
  Append(c, 64, false);
  EXPECT_EQ(a->keys()[0], b->keys()[0]);
  EXPECT_EQ(a->keys()[0], c.keys()[0]);
  EXPECT_NE(a->keys()[1], b->keys()[1]);
  EXPECT_NE(b->keys()[1], c.keys()[1]);
  EXPECT_TRUE(a->exact());
  EXPECT_FALSE(b->exact());
}

TEST_F(BlockLogTest, RefusedBlocksCountAsLost) {
  KvLayout other = test::SmallLayout();
  other.kv_heads = 1;  // the cache keeps blocks of another layout
  BlockLog log(other, BlockLogOptions(), cache_.get());
  log.Append(std::vector<int32_t>(64, 5), true,
             [&](int, int, char* out) { std::memset(out, 0, 64 * other.row_bytes()); });
  while (log.pending() > 0) {
    MutexLock lock(&mutex_);
    idle_.WaitUntil(&mutex_, std::chrono::steady_clock::now() + std::chrono::milliseconds(20));
  }
  EXPECT_EQ(log.failed_blocks(), 3);
  EXPECT_TRUE(log.IsLost(0, 1));
  EXPECT_FALSE(log.first_failure().ok());
}

}  // namespace
}  // namespace tidepool
