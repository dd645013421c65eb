// Single bits flipped in the TCP stream between a worker's cache client and a real service, within what the frames
// carry: values on their way in and out, gathered rows and their checksums, manifests. Each is noticed: what is stored
// is sent again, what is read is an error or differs from its checksums; the next attempt succeeds.
#include <gtest/gtest.h>

#include <cstring>
#include <future>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/checksum.h"
#include "cacheservice/remote/remote_cache.h"
#include "cacheservice/rpc/cache_server.h"
#include "policies/kv/block_codec.h"
#include "tests/reliability/bit_flip.h"
#include "tests/reliability/flipping_proxy.h"
#include "tests/support/blocks.h"
#include "tests/support/temp_dir.h"

namespace tidepool {
namespace {

using test::BitFlip;
using test::NumberedKey;
using test::NumberedValue;

constexpr int kBlocks = 20;
constexpr size_t kNeedleBytes = 16;  // enough to be found nowhere else

absl::Time Soon() { return absl::Now() + absl::Seconds(60); }
BlockId Id(int number) { return {NumberedKey(number), number % 3}; }
std::string Value(int number) { return NumberedValue(number, number % 3); }

class WireFlipTest : public testing::Test {
 protected:
  WireFlipTest() {
    CacheServerOptions options;
    options.listen = "127.0.0.1:0";
    options.cache.data_dir = dir_.path();
    options.cache.memory_bytes = 16 << 20;
    server_ = *CacheServer::Start(options);
    proxy_ = std::make_unique<test::FlippingProxy>(server_->port());
    RemoteCacheOptions remote;
    remote.endpoint = absl::StrCat("127.0.0.1:", proxy_->port());
    remote.layout = test::SmallLayout();
    cache_ = *RemoteCache::Connect(remote);
  }
  void Arm(std::string_view bytes, const BitFlip& flip) {
    const size_t first = std::min(flip.byte, bytes.size() - kNeedleBytes);
    proxy_->Arm(std::string(bytes.substr(first, kNeedleBytes)), flip.byte - first, flip.bit);
  }
  absl::Status Offload(int number) {
    std::promise<absl::Status> promise;
    cache_->Offload(Id(number), Value(number), {},
                    [&promise](absl::Status status) { promise.set_value(std::move(status)); });
    return promise.get_future().get();
  }
  absl::StatusOr<RecalledRows> Recall(const std::vector<RowSelection>& selections) {
    std::promise<absl::StatusOr<RecalledRows>> promise;
    cache_->Recall(selections, Soon(),
                   [&promise](absl::StatusOr<RecalledRows> rows) { promise.set_value(std::move(rows)); });
    return promise.get_future().get();
  }
  bool Fetched(int number) {
    const BlockId id = Id(number);
    const auto values = cache_->FetchBlocks({&id, 1}, Soon());
    if (!values.ok() || !(*values)[0].has_value()) return false;
    EXPECT_TRUE(*(*values)[0] == Value(number)) << "wrong bytes of block " << number;
    return true;
  }
  // Has `check` run until so many flips have happened: bytes that TCP or HTTP/2 cut in two pass unflipped.
  template <typename Check>
  static void Repeat(int flips, Check check) {
    int flipped = 0;
    for (int attempts = 0; flipped < flips; ++attempts) {
      ASSERT_LT(attempts, 4 * flips);
      flipped += check() ? 1 : 0;
      if (testing::Test::HasFailure()) return;
    }
  }

  test::TempDir dir_;
  std::unique_ptr<CacheServer> server_;
  std::unique_ptr<test::FlippingProxy> proxy_;
  std::unique_ptr<RemoteCache> cache_;
  std::mt19937 random_{7};
};

TEST_F(WireFlipTest, AnOffloadedValueThatIsFlippedIsSentAgain) {
  int number = 0;
  Repeat(60, [&] {
    const BitFlip flip(Value(++number), &random_);
    Arm(Value(number), flip);
    const int64_t resent = cache_->Stats().resent_blocks;
    EXPECT_TRUE(Offload(number).ok());
    const bool flipped = proxy_->Disarm();
    EXPECT_EQ(cache_->Stats().resent_blocks - resent, flipped ? 1 : 0) << flip;
    EXPECT_TRUE(Fetched(number)) << flip;
    return flipped;
  });
}

TEST_F(WireFlipTest, AFetchedValueThatIsFlippedIsFetchedAgain) {
  for (int number = 0; number < kBlocks; ++number) ASSERT_TRUE(Offload(number).ok());
  Repeat(200, [&] {
    const int number = static_cast<int>(random_() % kBlocks);
    const BitFlip flip(Value(number), &random_);
    Arm(Value(number), flip);
    const int64_t refetched = cache_->Stats().refetched_blocks;
    EXPECT_TRUE(Fetched(number)) << flip;
    const bool flipped = proxy_->Disarm();
    EXPECT_EQ(cache_->Stats().refetched_blocks - refetched, flipped ? 1 : 0) << flip;
    return flipped;
  });
}

TEST_F(WireFlipTest, ARecalledRowOrChecksumThatIsFlippedIsOneThatDiffersFromTheOther) {
  for (int number = 0; number < kBlocks; ++number) ASSERT_TRUE(Offload(number).ok());
  const size_t row_bytes = test::SmallLayout().row_bytes();
  Repeat(200, [&] {
    std::vector<RowSelection> selections;
    std::vector<std::string> sent;  // the rows, and the checksums that go with them
    std::string checksums;
    for (int i = 0; i < 3; ++i) {
      const int number = static_cast<int>(random_() % kBlocks);
      const std::string value = Value(number);
      const BlockView view = *BlockView::Parse(value);
      selections.push_back({Id(number), i % 2, (uint64_t{random_()} << 32 | random_()) | 0b11});
      for (int token = 0; token < kBlockTokens; ++token) {
        if ((selections.back().row_mask >> token & 1) == 0) continue;
        sent.emplace_back(view.Row(i % 2, token));
        const uint32_t checksum = view.RowChecksum(i % 2, token);
        checksums.append(reinterpret_cast<const char*>(&checksum), sizeof checksum);
      }
    }
    std::string rows;
    for (const std::string& row : sent) rows += row;
    BitFlip flip;
    const std::string& target = random_() % 4 == 0 ? checksums : rows;
    flip.byte = random_() % target.size();
    flip.bit = static_cast<int>(random_() % 8);
    Arm(target, flip);
    const absl::StatusOr<RecalledRows> came = Recall(selections);
    const bool flipped = proxy_->Disarm();
    EXPECT_TRUE(came.ok()) << came.status();
    EXPECT_EQ(came->row_checksums.size(), sent.size());
    if (testing::Test::HasFailure()) return false;
    int differ = 0;
    for (size_t row = 0; row < sent.size(); ++row) {
      const std::string_view bytes = std::string_view(came->rows).substr(row * row_bytes, row_bytes);
      if (Checksum32(bytes) != came->row_checksums[row]) {
        ++differ;
      } else {
        EXPECT_EQ(bytes, sent[row]);
      }
    }
    EXPECT_EQ(differ, flipped ? 1 : 0) << flip;
    return flipped;
  });
}

TEST_F(WireFlipTest, AManifestThatIsFlippedOnItsWayInOrOutIsRefusedAndThenRight) {
  SessionManifest manifest;
  manifest.tenant = "default";
  manifest.session_id = "s";
  manifest.model_fingerprint = "test-model";
  manifest.token_ids = {1, 2, 3};
  Repeat(40, [&] {
    ++manifest.revision;
    manifest.engine_state.clear();
    for (int i = 0; i < 2000; ++i) {
      const uint32_t word = static_cast<uint32_t>(random_());
      manifest.engine_state.append(reinterpret_cast<const char*>(&word), sizeof word);
    }
    BitFlip flip;
    flip.byte = random_() % manifest.engine_state.size();
    flip.bit = static_cast<int>(random_() % 8);
    Arm(manifest.engine_state, flip);
    bool flipped = false;
    const bool on_its_way_in = random_() % 2 == 0;
    if (!on_its_way_in) proxy_->Disarm();
    const absl::Status put = cache_->Put(manifest, Soon());
    if (on_its_way_in) {
      flipped = proxy_->Disarm();
      EXPECT_EQ(put.ok(), !flipped) << flip;
      if (flipped) {
        EXPECT_TRUE(cache_->Put(manifest, Soon()).ok());
      }
    } else {
      EXPECT_TRUE(put.ok()) << put;
      Arm(manifest.engine_state, flip);
      const auto got = cache_->Get("default", "s", Soon());
      flipped = proxy_->Disarm();
      EXPECT_EQ(got.ok(), !flipped) << flip;
    }
    const auto got = cache_->Get("default", "s", Soon());
    EXPECT_TRUE(got.ok() && got->has_value()) << got.status();
    if (testing::Test::HasFailure()) return false;
    EXPECT_EQ((*got)->revision, manifest.revision);
    EXPECT_TRUE((*got)->engine_state == manifest.engine_state);
    return flipped;
  });
}

}  // namespace
}  // namespace tidepool
