#include "cacheservice/embedded/cache_storage.h"

#include <gtest/gtest.h>

#include <atomic>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/blocks.h"
#include "tests/support/temp_dir.h"

namespace tidepool {
namespace {

constexpr absl::Duration kTtl = absl::Hours(24);
constexpr int kBlocksOfASession = 3;

class CacheStorageTest : public testing::Test {
 protected:
  CacheStorageTest() { Open(); }
  void Open() {
    storage_.reset();
    CacheOptions options;
    options.data_dir = dir_.path();
    options.memory_bytes = uint64_t{1} << 20;
    options.disk_bytes = uint64_t{16} << 20;
    options.disk_ttl = kTtl;
    storage_ = *CacheStorage::Open(options, [this] { return absl::FromUnixSeconds(seconds_); });
  }
  void Advance(absl::Duration by) {
    seconds_ += absl::ToInt64Seconds(by);
    storage_->blocks->ExpireUnused();
  }
  // Blocks are numbered from `first` on, of two layers each.
  void PutSession(const std::string& session, int first) {
    SessionManifest manifest = Manifest(session, 1);
    for (int number = first; number < first + kBlocksOfASession; ++number) {
      for (int layer = 0; layer < 2; ++layer) {
        ASSERT_TRUE(
            storage_->blocks->Put({test::NumberedKey(number), layer}, test::NumberedValue(number, layer), true).ok());
      }
      manifest.block_keys.push_back(test::NumberedKey(number));
    }
    ASSERT_TRUE(storage_->manifests->Put(manifest, absl::InfiniteFuture()).ok());
  }
  static SessionManifest Manifest(const std::string& session, int64_t revision) {
    SessionManifest manifest;
    manifest.tenant = "default";
    manifest.session_id = session;
    manifest.model_fingerprint = "test-model";
    manifest.revision = revision;
    return manifest;
  }
  // A turn of a session that is resident at its worker: no block is read.
  void GoOn(const std::string& session) {
    SessionManifest manifest = **storage_->manifests->Get("default", session, absl::InfiniteFuture());
    ++manifest.revision;
    ASSERT_TRUE(storage_->manifests->Put(manifest, absl::InfiniteFuture()).ok());
  }
  uint64_t OnDisk() const { return storage_->blocks->Stats().disk.objects; }

  const test::TempDir dir_;
  std::atomic<int64_t> seconds_{1'800'000'000};
  std::optional<CacheStorage> storage_;
};

TEST_F(CacheStorageTest, BlocksOfASessionThatGoesOnStayAndThoseOfOneThatDoesNotLeave) {
  PutSession("lives", 0);
  PutSession("ended", 100);
  EXPECT_EQ(OnDisk(), 12u);
  for (int turn = 0; turn < 3; ++turn) {
    Advance(kTtl * 2 / 3);
    GoOn("lives");
  }
  EXPECT_EQ(OnDisk(), 6u);
  EXPECT_EQ(storage_->blocks->CountLayers(test::NumberedKey(0)), 2);
  EXPECT_TRUE((*storage_->manifests->Get("default", "ended", absl::InfiniteFuture())).has_value())
      << "its tokens are there, to be computed again";
}

TEST_F(CacheStorageTest, WhenASessionWentOnLastIsKnownAfterARestart) {
  PutSession("lives", 0);
  PutSession("ended", 100);
  Advance(kTtl * 2 / 3);
  GoOn("lives");
  Open();
  Advance(kTtl * 2 / 3);
  EXPECT_EQ(OnDisk(), 6u);
  EXPECT_EQ(storage_->blocks->CountLayers(test::NumberedKey(0)), 2);
  Advance(kTtl);
  EXPECT_EQ(OnDisk(), 0u);
}

}  // namespace
}  // namespace tidepool
