#include "cacheservice/rocksdb/database.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/cacheservice/rocksdb/child_test.h"
#include "tests/support/temp_dir.h"

namespace tidepool {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using Entries = std::vector<std::pair<std::string, std::string>>;

class DatabaseAccess : public testing::Test {
 protected:
  static std::unique_ptr<Database> OpenAt(const std::string& data_dir) {
    DatabaseOptions options;
    options.data_dir = data_dir;
    options.write_buffer_bytes = 64 << 10;
    auto database = Database::Open(options);
    EXPECT_TRUE(database.ok()) << database.status();
    return database.ok() ? *std::move(database) : nullptr;
  }
  static absl::Status Put(Database& database, Family family, std::string_view key, std::string_view value,
                          Durability durability = Durability::kSynced) {
    const Mutation mutation = {.family = family, .key = key, .value = value};
    return database.Write({&mutation, 1}, durability);
  }
  static absl::Status Erase(Database& database, Family family, std::string_view key) {
    const Mutation mutation = {.family = family, .key = key, .erase = true};
    return database.Write({&mutation, 1}, Durability::kSynced);
  }
  static Entries All(const Database& database, Family family, std::string_view first = {}, std::string_view end = {}) {
    Entries entries;
    EXPECT_TRUE(database
                    .Scan(family, first, end,
                          [&entries](std::string_view key, std::string_view value) {
                            entries.emplace_back(key, value);
                            return true;
                          })
                    .ok());
    return entries;
  }
};

class DatabaseTest : public DatabaseAccess {
 protected:
  std::unique_ptr<Database> Open() const { return OpenAt(dir_.path()); }
  // Runs a test of DatabaseChild on this directory until it reports; then it is killed.
  void RunChild(const std::string& name) const {
    const auto child = test::StartChildTest(name, dir_.path());
    EXPECT_EQ(child->WaitForLine("report: "), "report: done");
    EXPECT_EQ(child->Kill(), test::ExitStatus::Signaled(SIGKILL));
  }

  const test::TempDir dir_;
};

TEST_F(DatabaseTest, WhatIsWrittenIsReadInItsOwnFamilyOnly) {
  auto database = Open();
  ASSERT_TRUE(Put(*database, Family::kManifests, "key", "value").ok());
  EXPECT_EQ(*database->Get(Family::kManifests, "key"), "value");
  EXPECT_EQ(*database->Get(Family::kBlockValues, "key"), std::nullopt);
  EXPECT_EQ(*database->Get(Family::kManifests, "other"), std::nullopt);
  ASSERT_TRUE(Put(*database, Family::kManifests, "key", std::string("a\0b", 3)).ok());
  EXPECT_EQ(*database->Get(Family::kManifests, "key"), std::string("a\0b", 3)) << "replaced";
  ASSERT_TRUE(Put(*database, Family::kManifests, "empty", "").ok());
  EXPECT_EQ(*database->Get(Family::kManifests, "empty"), "") << "empty is not absent";
  ASSERT_TRUE(Erase(*database, Family::kManifests, "key").ok());
  EXPECT_EQ(*database->Get(Family::kManifests, "key"), std::nullopt);
}

TEST_F(DatabaseTest, AScanGoesFromFirstToBeforeEndInOrderUntilTold) {
  auto database = Open();
  for (const char* key : {"d", "a", "c", "b"}) ASSERT_TRUE(Put(*database, Family::kBlockIndex, key, key).ok());
  EXPECT_THAT(All(*database, Family::kBlockIndex, "b", "d"), ElementsAre(std::pair("b", "b"), std::pair("c", "c")));
  EXPECT_EQ(All(*database, Family::kBlockIndex).size(), 4u);
  int seen = 0;
  ASSERT_TRUE(
      database->Scan(Family::kBlockIndex, {}, {}, [&seen](std::string_view, std::string_view) { return ++seen < 2; })
          .ok());
  EXPECT_EQ(seen, 2);
}

TEST_F(DatabaseTest, AnOrderlyCloseKeepsWhatWasNotLogged) {
  {
    auto database = Open();
    for (const Family family : {Family::kMeta, Family::kBlockIndex, Family::kBlockValues, Family::kManifests}) {
      ASSERT_TRUE(Put(*database, family, "key", "value", Durability::kUnlogged).ok());
    }
  }
  auto database = Open();
  for (const Family family : {Family::kMeta, Family::kBlockIndex, Family::kBlockValues, Family::kManifests}) {
    EXPECT_EQ(*database->Get(family, "key"), "value");
  }
}

class DatabaseChild : public DatabaseAccess {
 protected:
  static std::unique_ptr<Database> OpenHere() { return OpenAt(test::ChildDirectory()); }
};

TEST_F(DatabaseChild, DISABLED_WritesUnloggedAndSynced) {
  auto database = OpenHere();
  for (int i = 0; i < 50; ++i) {
    const std::string key = absl::StrCat("synced", i), other = absl::StrCat("unlogged", i);
    const std::string value(5000, static_cast<char>('a' + i % 26));
    const Mutation unlogged[] = {{.family = Family::kBlockIndex, .key = other, .value = "there"},
                                 {.family = Family::kBlockValues, .key = other, .value = value}};
    ASSERT_TRUE(database->Write(unlogged, Durability::kUnlogged).ok());
    ASSERT_TRUE(Put(*database, Family::kBlockValues, key, value).ok());
  }
  test::ReportAndWait("done");
}

// Promise P7, without a service in between.
TEST_F(DatabaseTest, SyncedWritesSurviveAKillAndUnloggedOnesAreWholeOrGone) {
  RunChild("DatabaseChild.DISABLED_WritesUnloggedAndSynced");
  auto database = Open();
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(*database->Get(Family::kBlockValues, absl::StrCat("synced", i)), std::string(5000, 'a' + i % 26));
    const std::string other = absl::StrCat("unlogged", i);
    EXPECT_EQ(database->Get(Family::kBlockIndex, other)->has_value(),
              database->Get(Family::kBlockValues, other)->has_value())
        << "all or nothing over families";
  }
}

TEST_F(DatabaseChild, DISABLED_WritesUnloggedAndFlushes) {
  auto database = OpenHere();
  ASSERT_TRUE(Put(*database, Family::kBlockValues, "key", "value", Durability::kUnlogged).ok());
  ASSERT_TRUE(database->Flush().ok());
  test::ReportAndWait("done");
}

TEST_F(DatabaseTest, AFlushMakesUnloggedWritesSurviveAKill) {
  RunChild("DatabaseChild.DISABLED_WritesUnloggedAndFlushes");
  EXPECT_EQ(*Open()->Get(Family::kBlockValues, "key"), "value");
}

TEST_F(DatabaseTest, WholeFilesBelowAKeyAreDroppedAndNoKeyFromItOn) {
  auto database = Open();
  const std::string value(20000, 'v');
  for (int i = 0; i < 100; ++i) {  // 2 MB through buffers of 64 KiB
    ASSERT_TRUE(Put(*database, Family::kBlockValues, absl::StrCat(1000 + i), value, Durability::kUnlogged).ok());
  }
  ASSERT_TRUE(database->Flush().ok());
  const uint64_t before = database->UsedBytes();
  EXPECT_GT(before, 100 * value.size());
  ASSERT_TRUE(database->DropFilesBelow(Family::kBlockValues, "1080").ok());
  for (int i = 80; i < 100; ++i) {
    EXPECT_EQ(*database->Get(Family::kBlockValues, absl::StrCat(1000 + i)), value) << i;
  }
}

TEST_F(DatabaseTest, ASecondDatabaseInTheSameProcessIsRefused) {
  auto database = Open();
  DatabaseOptions options;
  options.data_dir = dir_.path();
  const auto second = Database::Open(options);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.status().message()), AllOf(HasSubstr(dir_.path()), HasSubstr("is in use by another")));
  ASSERT_TRUE(Put(*database, Family::kMeta, "key", "value").ok()) << "the first is not disturbed";
}

TEST_F(DatabaseChild, DISABLED_HoldsTheDirectory) {
  auto database = OpenHere();
  ASSERT_NE(database, nullptr);
  test::ReportAndWait("done");
}

TEST_F(DatabaseTest, ADirectoryThatAnotherProcessHasOpenIsRefusedUntilThatEnds) {
  const auto holder = test::StartChildTest("DatabaseChild.DISABLED_HoldsTheDirectory", dir_.path());
  EXPECT_EQ(holder->WaitForLine("report: "), "report: done");
  DatabaseOptions options;
  options.data_dir = dir_.path();
  const auto refused = Database::Open(options);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.status().message()),
              AllOf(HasSubstr(dir_.path()), HasSubstr("is in use by another process")));
  holder->Kill();
  EXPECT_NE(Open(), nullptr) << "the lock ends with its process, also a killed one";
}

TEST_F(DatabaseTest, AnotherFormatVersionIsRefusedAndLeftAsItWas) {
  ASSERT_TRUE(Put(*Open(), Family::kMeta, "format", "2").ok());
  for (int attempt = 0; attempt < 2; ++attempt) {
    DatabaseOptions options;
    options.data_dir = dir_.path();
    const auto refused = Database::Open(options);
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(refused.status().message()),
                AllOf(HasSubstr(dir_.path()), HasSubstr("format version 2"), HasSubstr("reads version 1")));
  }
}

TEST_F(DatabaseTest, OptionsOutOfRangeAreNamed) {
  DatabaseOptions options;
  EXPECT_EQ(Database::Open(options).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Database::Open(options).status().message()), HasSubstr("data_dir is empty"));
  options.data_dir = dir_.path();
  for (const uint64_t bytes : {(uint64_t{64} << 10) - 1, (uint64_t{1} << 30) + 1}) {
    options.write_buffer_bytes = bytes;
    EXPECT_THAT(std::string(Database::Open(options).status().message()),
                HasSubstr(absl::StrCat("write_buffer_bytes ", bytes, " is not in 65536 to 1073741824")));
  }
}

TEST_F(DatabaseTest, ADirectoryThatCannotBeMadeIsNamed) {
  std::ofstream(dir_.File("file")) << "not a directory";
  for (const std::string& data_dir : {dir_.File("file/data"), dir_.File("file"), std::string("/proc/tidepool-test")}) {
    DatabaseOptions options;
    options.data_dir = data_dir;
    const auto refused = Database::Open(options);
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kUnavailable) << data_dir;
    EXPECT_THAT(std::string(refused.status().message()), HasSubstr("data_dir " + data_dir));
  }
}

TEST_F(DatabaseTest, DirectoriesOnTheWayAreMade) {
  auto database = OpenAt(dir_.File("a/b/c"));
  ASSERT_NE(database, nullptr);
  EXPECT_TRUE(std::filesystem::is_directory(dir_.File("a/b/c/db")));
  EXPECT_GT(database->UsedBytes(), 0u);
  EXPECT_TRUE(database->writable());
}

TEST_F(DatabaseTest, FilesOfAnotherKindAreAnErrorThatNamesTheDirectory) {
  Open();
  std::ofstream(dir_.File("db/CURRENT")) << "no manifest's name";
  DatabaseOptions options;
  options.data_dir = dir_.path();
  const auto damaged = Database::Open(options);
  EXPECT_EQ(damaged.status().code(), absl::StatusCode::kDataLoss) << damaged.status();
  EXPECT_THAT(std::string(damaged.status().message()), HasSubstr("data_dir " + dir_.path()));
}

TEST_F(DatabaseTest, WritersOfSeveralThreadsAllSucceed) {
  auto database = Open();
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&database, thread] {
      for (int i = 0; i < 20; ++i) {
        EXPECT_TRUE(Put(*database, Family::kManifests, absl::StrCat(thread, "/", i), absl::StrCat(i)).ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(All(*database, Family::kManifests).size(), 80u);
}

}  // namespace
}  // namespace tidepool
