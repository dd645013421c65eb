// What a full, read-only or unreadable disk does to the database: a status that says so, and a process that lives.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "cacheservice/rocksdb/database.h"
#include "tests/cacheservice/rocksdb/child_test.h"
#include "tests/cacheservice/rocksdb/faulty_disk.h"
#include "tests/support/eventually.h"
#include "tests/support/paths.h"
#include "tests/support/temp_dir.h"

namespace tidepool {
namespace {

using test::FaultyFileSystem;
using testing::AllOf;
using testing::HasSubstr;

class DiskFaultTest : public testing::Test {
 protected:
  std::unique_ptr<Database> Open(absl::Duration resume_interval = absl::ZeroDuration()) const {
    auto database = TryOpen(resume_interval);
    EXPECT_TRUE(database.ok()) << database.status();
    return database.ok() ? *std::move(database) : nullptr;
  }
  absl::StatusOr<std::unique_ptr<Database>> TryOpen(absl::Duration resume_interval = absl::ZeroDuration()) const {
    DatabaseOptions options;
    options.data_dir = dir_.path();
    options.write_buffer_bytes = 64 << 10;
    options.resume_interval = resume_interval;
    options.env = disk_.env();
    return Database::Open(options);
  }
  static absl::Status Put(Database& database, std::string_view key, std::string_view value,
                          Durability durability = Durability::kSynced) {
    const Mutation mutation = {.family = Family::kBlockValues, .key = key, .value = value};
    return database.Write({&mutation, 1}, durability);
  }

  const test::TempDir dir_;
  test::FaultyDisk disk_;
};

TEST_F(DiskFaultTest, AFullDiskRefusesWritesByNameAndReadsGoOnAndWritesComeBack) {
  auto database = Open();
  ASSERT_TRUE(Put(*database, "before", "1").ok());
  disk_->set_writes(FaultyFileSystem::Writes::kDiskFull);
  for (int attempt = 0; attempt < 5; ++attempt) {
    const absl::Status refused = Put(*database, absl::StrCat("during", attempt), "2");
    EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(std::string(refused.message()), AllOf(HasSubstr(dir_.path()), HasSubstr("No space left on device")));
    EXPECT_FALSE(database->writable());
    EXPECT_EQ(*database->Get(Family::kBlockValues, "before"), "1");
  }
  disk_->set_writes(FaultyFileSystem::Writes::kWork);
  EXPECT_EQ(Put(*database, "after", "3"), absl::OkStatus());
  EXPECT_TRUE(database->writable());
  database.reset();
  database = Open();
  EXPECT_EQ(*database->Get(Family::kBlockValues, "before"), "1");
  EXPECT_EQ(*database->Get(Family::kBlockValues, "after"), "3");
}

// Some writes are on their way into RocksDB when another one fails, and flushes fail beside them.
TEST_F(DiskFaultTest, WritersSideBySideOutliveADiskThatIsFullAgainAndAgain) {
  auto database = Open();
  std::atomic<bool> stop{false};
  std::vector<std::thread> writers;
  for (int writer = 0; writer < 4; ++writer) {
    writers.emplace_back([&, writer] {
      const std::string value(10 << 10, 'v');
      for (int i = 0; !stop; ++i) {
        const bool logged = (i + writer) % 3 == 0;
        Put(*database, absl::StrCat("w", writer, "-", i % 50), logged ? "small" : value,
            logged ? Durability::kSynced : Durability::kUnlogged)
            .IgnoreError();
      }
    });
  }
  constexpr int kRounds = 5;  // RocksDB waits a second before it resumes
  for (int round = 0; round < kRounds; ++round) {
    const int refused = disk_->refused_writes();
    disk_->set_writes(round % 3 == 2 ? FaultyFileSystem::Writes::kDiskFull : FaultyFileSystem::Writes::kNoBlocks);
    EXPECT_TRUE(test::Eventually([&] { return disk_->refused_writes() > refused + round; }));
    disk_->set_writes(FaultyFileSystem::Writes::kWork);
    const std::string key = absl::StrCat("after", round);
    EXPECT_TRUE(test::Eventually([&] { return Put(*database, key, "1").ok(); }));
  }
  stop = true;
  for (std::thread& writer : writers) writer.join();
  database.reset();
  database = Open();
  for (int round = 0; round < kRounds; ++round) {
    EXPECT_EQ(*database->Get(Family::kBlockValues, absl::StrCat("after", round)), "1");
  }
}

TEST_F(DiskFaultTest, ALogWhoseFirstWriteFailsIsNotWrittenAgainThoughMemtablesHoldSomething) {
  for (const FaultyFileSystem::Writes writes :
       {FaultyFileSystem::Writes::kDiskFull, FaultyFileSystem::Writes::kReadOnly}) {
    auto database = Open();  // with a log of its own, which is empty
    ASSERT_TRUE(Put(*database, "unlogged", "1", Durability::kUnlogged).ok());
    disk_->set_writes(writes);
    EXPECT_FALSE(Put(*database, "during", "2").ok());
    disk_->set_writes(FaultyFileSystem::Writes::kWork);
    EXPECT_EQ(Put(*database, "after", "3"), absl::OkStatus());
    EXPECT_EQ(*database->Get(Family::kBlockValues, "unlogged"), "1");
    database.reset();
    database = Open();
    EXPECT_EQ(*database->Get(Family::kBlockValues, "after"), "3");
  }
}

TEST_F(DiskFaultTest, FilesThatCouldNotBeOpenedAnewAreTriedAgainByReadersAndWriters) {
  {
    auto database = Open();
    ASSERT_TRUE(Put(*database, "before", "1").ok());
    ASSERT_TRUE(database->Flush().ok());
  }
  auto database = Open();
  for (const bool reads_first : {true, false}) {
    disk_->set_writes(FaultyFileSystem::Writes::kDiskFull);
    EXPECT_FALSE(Put(*database, "during", "2").ok());
    disk_->set_reads_fail(true);
    disk_->set_writes(FaultyFileSystem::Writes::kWork);
    EXPECT_FALSE(Put(*database, "closed", "3").ok());  // opens the files anew, which cannot be read
    EXPECT_EQ(database->Get(Family::kBlockValues, "before").status().code(), absl::StatusCode::kUnavailable);
    disk_->set_reads_fail(false);
    if (reads_first) {
      EXPECT_EQ(*database->Get(Family::kBlockValues, "before"), "1");
    }
    EXPECT_EQ(Put(*database, "after", "4"), absl::OkStatus());
    EXPECT_EQ(*database->Get(Family::kBlockValues, "after"), "4");
    EXPECT_TRUE(database->writable());
    ASSERT_TRUE(database->Flush().ok());  // the next round begins with empty memtables, as this one did
  }
}

// One that serves what it can read of damaged files is opened in another way (database.h), which must not change this.
TEST_F(DiskFaultTest, ADamagedDatabaseOnAFullDiskRefusesWritesAndTakesThemAgain) {
  {
    auto database = Open();
    ASSERT_TRUE(Put(*database, "lost", "0").ok());
    ASSERT_TRUE(database->Flush().ok());
  }
  for (const auto& file : std::filesystem::directory_iterator(dir_.File("db"))) {
    if (file.path().extension() != ".sst") continue;
    std::string bytes = test::ReadFile(file.path());
    if (bytes.find("block_values") == std::string::npos) continue;
    bytes.back() = static_cast<char>(bytes.back() ^ 1);
    std::ofstream(file.path(), std::ios::binary) << bytes;
  }
  auto database = Open();
  ASSERT_EQ(database->Get(Family::kBlockValues, "lost").status().code(), absl::StatusCode::kDataLoss);
  for (int round = 0; round < 4; ++round) {
    const std::string number = absl::StrCat(round);
    ASSERT_TRUE(Put(*database, "m-before" + number, "1").ok()) << number;
    ASSERT_TRUE(Put(*database, "m-unlogged" + number, "2", Durability::kUnlogged).ok());
    disk_->set_writes(round % 2 == 0 ? FaultyFileSystem::Writes::kDiskFull : FaultyFileSystem::Writes::kReadOnly);
    EXPECT_EQ(Put(*database, "m-during" + number, "3").code(), absl::StatusCode::kResourceExhausted);
    if (round > 1) {
      EXPECT_EQ(database->Flush().code(), absl::StatusCode::kResourceExhausted);
    }
    EXPECT_FALSE(database->writable());
    disk_->set_writes(FaultyFileSystem::Writes::kWork);
    EXPECT_EQ(Put(*database, "m-after" + number, "4"), absl::OkStatus());
  }
  database.reset();
  database = Open();
  for (int round = 0; round < 4; ++round) {
    EXPECT_EQ(*database->Get(Family::kBlockValues, absl::StrCat("m-before", round)), "1");
    EXPECT_EQ(*database->Get(Family::kBlockValues, absl::StrCat("m-after", round)), "4");
  }
}

TEST_F(DiskFaultTest, ADiskThatBecomesReadOnlyRefusesWritesAndReadsGoOn) {
  auto database = Open();
  ASSERT_TRUE(Put(*database, "before", "1").ok());
  ASSERT_TRUE(database->Flush().ok());
  disk_->set_writes(FaultyFileSystem::Writes::kReadOnly);
  const absl::Status refused = Put(*database, "during", "2");
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()), AllOf(HasSubstr(dir_.path()), HasSubstr("Read-only file system")));
  EXPECT_EQ(database->Flush().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(*database->Get(Family::kBlockValues, "before"), "1");
  disk_->set_writes(FaultyFileSystem::Writes::kWork);
  EXPECT_EQ(Put(*database, "after", "3"), absl::OkStatus());
}

TEST_F(DiskFaultTest, AFullDiskIsNotFloodedWithAttempts) {
  auto database = Open(/*resume_interval=*/absl::Hours(1));
  disk_->set_writes(FaultyFileSystem::Writes::kDiskFull);
  EXPECT_FALSE(Put(*database, "first", "1").ok());
  const int refused = disk_->refused_writes();
  for (int attempt = 0; attempt < 100; ++attempt) EXPECT_FALSE(Put(*database, "more", "1").ok());
  EXPECT_LE(disk_->refused_writes(), refused + 1) << "the others did not reach the disk";
}

TEST_F(DiskFaultTest, UnloggedWritesFindOutAtTheFlush) {
  auto database = Open();
  ASSERT_TRUE(Put(*database, "key", "value", Durability::kUnlogged).ok());
  disk_->set_writes(FaultyFileSystem::Writes::kDiskFull);
  EXPECT_EQ(database->Flush().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(*database->Get(Family::kBlockValues, "key"), "value") << "it is still in memory";
  disk_->set_writes(FaultyFileSystem::Writes::kWork);
  EXPECT_EQ(Put(*database, "more", "1"), absl::OkStatus());
  EXPECT_EQ(database->Flush(), absl::OkStatus());
  database.reset();
  EXPECT_EQ(*Open()->Get(Family::kBlockValues, "key"), "value");
}

TEST_F(DiskFaultTest, AFlushAfterTheDiskHasFailedIsDoneWhenItReturns) {
  for (int round = 0; round < 2; ++round) {
    auto database = Open();
    ASSERT_TRUE(Put(*database, "before", "1", Durability::kUnlogged).ok());
    disk_->set_writes(FaultyFileSystem::Writes::kNoSync);
    ASSERT_FALSE(Put(*database, "during", "2").ok());
    disk_->set_writes(FaultyFileSystem::Writes::kWork);
    const std::string key = absl::StrCat("unlogged", round);
    ASSERT_EQ(Put(*database, "after", "3"), absl::OkStatus());
    ASSERT_EQ(Put(*database, key, "4", Durability::kUnlogged), absl::OkStatus());
    ASSERT_EQ(database->Flush(), absl::OkStatus());
    disk_->set_writes(FaultyFileSystem::Writes::kDiskFull);
    database.reset();
    disk_->set_writes(FaultyFileSystem::Writes::kWork);
    database = Open();
    EXPECT_EQ(*database->Get(Family::kBlockValues, key), "4") << round;
  }
}

TEST_F(DiskFaultTest, ClosingWhileTheDiskRefusesLosesOnlyWhatWasNotLogged) {
  {
    auto database = Open();
    ASSERT_TRUE(Put(*database, "logged", "1").ok());
    ASSERT_TRUE(Put(*database, "unlogged", "2", Durability::kUnlogged).ok());
    disk_->set_writes(FaultyFileSystem::Writes::kReadOnly);
    EXPECT_FALSE(Put(*database, "refused", "3").ok());
    EXPECT_FALSE(database->Flush().ok());
  }
  disk_->set_writes(FaultyFileSystem::Writes::kWork);
  auto database = Open();
  EXPECT_EQ(*database->Get(Family::kBlockValues, "logged"), "1");
  EXPECT_EQ(*database->Get(Family::kBlockValues, "refused"), std::nullopt);
}

TEST_F(DiskFaultTest, ReadersGoOnWhileTheDiskFailsAndComesBackAgainAndAgain) {
  auto database = Open();
  ASSERT_TRUE(Put(*database, "before", "1").ok());
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&] {
      while (!stop) {
        const auto read = database->Get(Family::kBlockValues, "before");
        if (!read.ok() || *read != "1") ++wrong;
      }
    });
  }
  for (int round = 0; round < 4; ++round) {
    if (round % 2 == 0) {
      EXPECT_TRUE(database->Flush().ok());  // then the files are opened anew
    }
    disk_->set_writes(round % 3 == 0 ? FaultyFileSystem::Writes::kDiskFull : FaultyFileSystem::Writes::kReadOnly);
    EXPECT_FALSE(Put(*database, absl::StrCat("refused", round), "2").ok());
    disk_->set_writes(FaultyFileSystem::Writes::kWork);
    EXPECT_EQ(Put(*database, absl::StrCat("after", round), "3"), absl::OkStatus());
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_EQ(wrong, 0);
  database.reset();
  database = Open();
  for (int round = 0; round < 4; ++round) {
    EXPECT_EQ(*database->Get(Family::kBlockValues, absl::StrCat("after", round)), "3");
    EXPECT_EQ(*database->Get(Family::kBlockValues, absl::StrCat("refused", round)), std::nullopt);
  }
}

TEST_F(DiskFaultTest, OpeningOnAFullOrReadOnlyDiskSaysSo) {
  disk_->set_writes(FaultyFileSystem::Writes::kDiskFull);
  const auto full = TryOpen();
  EXPECT_EQ(full.status().code(), absl::StatusCode::kResourceExhausted) << full.status();
  EXPECT_THAT(std::string(full.status().message()), AllOf(HasSubstr(dir_.path()), HasSubstr("disk full")));
  disk_->set_writes(FaultyFileSystem::Writes::kReadOnly);
  const auto read_only = TryOpen();
  EXPECT_EQ(read_only.status().code(), absl::StatusCode::kUnavailable) << read_only.status();
  EXPECT_THAT(std::string(read_only.status().message()),
              AllOf(HasSubstr(dir_.path()), HasSubstr("Read-only file system")));
}

TEST_F(DiskFaultTest, AReadThatFailsIsUnavailableNotAbsent) {
  {
    auto database = Open();
    ASSERT_TRUE(Put(*database, "key", std::string(20000, 'v')).ok());
    ASSERT_TRUE(database->Flush().ok());
  }
  auto database = Open();
  disk_->set_reads_fail(true);
  EXPECT_EQ(database->Get(Family::kBlockValues, "key").status().code(), absl::StatusCode::kUnavailable);
  const absl::Status scanned =
      database->Scan(Family::kBlockValues, {}, {}, [](std::string_view, std::string_view) { return true; });
  EXPECT_EQ(scanned.code(), absl::StatusCode::kUnavailable);
  disk_->set_reads_fail(false);
  EXPECT_EQ(*database->Get(Family::kBlockValues, "key"), std::string(20000, 'v'));
}

// The kernel's own refusal, as a full disk gives it: no file may grow past a limit. In a child, because the limit is
// the process's.
// RocksDB 7.8 ends there and says that all is well.
TEST_F(DiskFaultTest, AScanInWhichAReadFailsSaysSoOrGivesAll) {
  constexpr int kKeys = 40;
  auto database = Open();
  for (int i = 0; i < kKeys; ++i) {
    ASSERT_TRUE(Put(*database, absl::StrCat("key", 100 + i), std::string(100, 'v')).ok());
    if (i % 8 != 7) continue;
    ASSERT_TRUE(database->Flush().ok());
  }
  int failed = 0;
  bool any_left = true;
  for (int reads = 0; any_left; ++reads) {
    database.reset();
    database = Open();  // what was read before is forgotten
    disk_->FailReadAfter(reads);
    int keys = 0;
    const absl::Status scanned =
        database->Scan(Family::kBlockValues, {}, {}, [&keys](std::string_view, std::string_view) {
          ++keys;
          return true;
        });
    any_left = disk_->read_has_failed();
    disk_->FailReadAfter(-1);
    failed += scanned.ok() ? 0 : 1;
    EXPECT_TRUE(!scanned.ok() || keys == kKeys) << "read " << reads << " failed, " << keys << " keys came";
    EXPECT_TRUE(scanned.ok() || absl::IsUnavailable(scanned)) << scanned;
  }
  EXPECT_GT(failed, 3);
}

TEST(DiskFaultChild, DISABLED_WritesUntilTheKernelRefuses) {
  std::signal(SIGXFSZ, SIG_IGN);
  DatabaseOptions options;
  options.data_dir = test::ChildDirectory();
  options.resume_interval = absl::ZeroDuration();
  const std::unique_ptr<Database> database = *Database::Open(options);
  const auto put = [&database](std::string_view key, std::string_view value) {
    const Mutation mutation = {.family = Family::kBlockValues, .key = key, .value = value};
    return database->Write({&mutation, 1}, Durability::kSynced);
  };
  ASSERT_EQ(put("before", "1"), absl::OkStatus());
  rlimit unlimited{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &unlimited), 0);
  rlimit limit = unlimited;
  limit.rlim_cur = 256 << 10;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
  const std::string value(64 << 10, 'v');
  absl::Status refused;
  for (int i = 0; i < 100 && refused.ok(); ++i) refused = put(absl::StrCat(i), value);
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_FALSE(database->writable());
  EXPECT_EQ(*database->Get(Family::kBlockValues, "before"), "1");
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &unlimited), 0);
  EXPECT_EQ(put("after", "3"), absl::OkStatus());
  if (HasFailure()) return;
  test::ReportAndWait(std::string(refused.message()));
}

TEST_F(DiskFaultTest, ARealRefusalByTheKernelIsAStatusAndTheProcessLivesOn) {
  const auto child = test::StartChildTest("DiskFaultChild.DISABLED_WritesUntilTheKernelRefuses", dir_.path());
  EXPECT_THAT(child->WaitForLine("report: "),
              AllOf(HasSubstr("data_dir " + dir_.path() + " takes no writes"), HasSubstr("File too large")));
  child->Kill();
  auto database = Open();
  EXPECT_EQ(*database->Get(Family::kBlockValues, "before"), "1");
  EXPECT_EQ(*database->Get(Family::kBlockValues, "after"), "3");
}

}  // namespace
}  // namespace tidepool
