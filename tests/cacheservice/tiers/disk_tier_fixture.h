// A disk tier over RocksDB on a disk that can be told to fail, on a clock that the test moves.
#ifndef TIDEPOOL_TESTS_CACHESERVICE_TIERS_DISK_TIER_FIXTURE_H_
#define TIDEPOOL_TESTS_CACHESERVICE_TIERS_DISK_TIER_FIXTURE_H_

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/time/time.h"
#include "cacheservice/rocksdb/database.h"
#include "cacheservice/tiers/disk_tier.h"
#include "tests/cacheservice/rocksdb/faulty_disk.h"
#include "tests/support/temp_dir.h"

namespace tidepool::test {

// Moved by the test, read by any thread.
class MovedClock {
 public:
  absl::Time Now() const { return absl::FromUnixSeconds(seconds_); }
  void Advance(absl::Duration by) { seconds_ += absl::ToInt64Seconds(by); }

 private:
  std::atomic<int64_t> seconds_{1'800'000'000};
};

class DiskTierFixture : public testing::Test {
 protected:
  static constexpr uint64_t kDiskBytes = uint64_t{16} << 20;

  DiskTierFixture() { Open(); }
  void Open() {
    DatabaseOptions options;
    options.data_dir = dir_.path();
    options.write_buffer_bytes = DiskTier::WriteBufferBytes(kDiskBytes);
    options.resume_interval = absl::ZeroDuration();
    options.env = disk_.env();
    database_ = *Database::Open(options);
    tier_ = *DiskTier::Open(database_.get(), kDiskBytes, nullptr, nullptr, kNoTenant, [this] { return clock_.Now(); });
  }
  void Close() {
    tier_.reset();
    database_.reset();
  }
  void Reopen() {
    Close();
    Open();
  }

  const TempDir dir_;
  const FaultyDisk disk_;
  MovedClock clock_;
  std::unique_ptr<Database> database_;
  std::unique_ptr<DiskTier> tier_;
};

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_CACHESERVICE_TIERS_DISK_TIER_FIXTURE_H_
