#include "cacheservice/manifests/manifest_store_disk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cacheservice/rocksdb/database.h"
#include "tests/cacheservice/rocksdb/faulty_disk.h"
#include "tests/support/blocks.h"
#include "tests/support/temp_dir.h"

namespace tidepool {
namespace {

using test::FaultyFileSystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr absl::Time kNever = absl::InfiniteFuture();
constexpr absl::StatusCode kAborted = absl::StatusCode::kAborted;

class ManifestStoreTest : public testing::Test {
 protected:
  explicit ManifestStoreTest(uint64_t limit_bytes = uint64_t{1} << 20) : limit_bytes_(limit_bytes) { Open(); }
  void Open() {
    DatabaseOptions options;
    options.data_dir = dir_.path();
    options.resume_interval = absl::ZeroDuration();
    options.env = disk_.env();
    database_ = *Database::Open(options);
    store_ = *DiskManifestStore::Open(database_.get(), limit_bytes_, [this] { return now_; });
  }
  void Reopen() {
    store_.reset();
    database_.reset();
    Open();
  }
  static SessionManifest Manifest(const std::string& tenant, const std::string& session, int64_t revision = 1,
                                  size_t state_bytes = 100) {
    SessionManifest manifest;
    manifest.tenant = tenant;
    manifest.session_id = session;
    manifest.model_fingerprint = "model";
    manifest.revision = revision;
    manifest.token_ids = {static_cast<int32_t>(revision), 2, 3};
    manifest.block_keys = {test::NumberedKey(static_cast<int>(revision))};
    manifest.preset = "preset";
    manifest.engine_state = std::string(state_bytes, 's');
    return manifest;
  }
  absl::Status Put(const SessionManifest& manifest) { return store_->Put(manifest, kNever); }
  absl::StatusOr<std::optional<SessionManifest>> Get(const std::string& tenant, const std::string& session) {
    return store_->Get(tenant, session, kNever);
  }
  std::vector<std::string> Names(const ManifestPage& page) {
    std::vector<std::string> names;
    for (const ManifestSummary& summary : page.sessions) names.push_back(summary.tenant + "/" + summary.session_id);
    return names;
  }
  void FlipByte(char kind, const std::string& tenant, const std::string& session) {
    const std::string key = kind + tenant + '\0' + session;
    std::string value = **database_->Get(Family::kManifests, key);
    value[value.size() / 2] ^= 4;
    const Mutation mutation = {.family = Family::kManifests, .key = key, .value = value};
    ASSERT_TRUE(database_->Write({&mutation, 1}, Durability::kSynced).ok());
  }

  const uint64_t limit_bytes_;
  const test::TempDir dir_;
  const test::FaultyDisk disk_;
  absl::Time now_ = absl::FromUnixMillis(1000);
  std::unique_ptr<Database> database_;
  std::unique_ptr<DiskManifestStore> store_;
};

TEST_F(ManifestStoreTest, WhatWasPutIsReadBackWithTheStoresTime) {
  SessionManifest manifest = Manifest("acme", "s1");
  manifest.updated_unix_ms = 77;  // not the writer's to say
  ASSERT_EQ(Put(manifest), absl::OkStatus());
  manifest.updated_unix_ms = 1000;
  EXPECT_EQ(**Get("acme", "s1"), manifest);
  EXPECT_EQ(*Get("acme", "s2"), std::nullopt) << "no such session is no error";
  const ManifestStats stats = store_->Stats();
  EXPECT_EQ(stats.sessions, 1);
  EXPECT_EQ(stats.puts, 1u);
  EXPECT_EQ(stats.gets, 2u);
  EXPECT_EQ(stats.misses, 1u);
}

TEST_F(ManifestStoreTest, OnlyTheRevisionThatFollowsIsTaken) {
  EXPECT_EQ(Put(Manifest("acme", "s1", 2)).code(), kAborted) << "the first is 1";
  ASSERT_TRUE(Put(Manifest("acme", "s1", 1)).ok());
  for (const int64_t stale : {1, 3, 9}) {
    const absl::Status refused = Put(Manifest("acme", "s1", stale));
    EXPECT_EQ(refused.code(), kAborted);
    EXPECT_THAT(std::string(refused.message()),
                HasSubstr(absl::StrCat("revision ", stale, " does not follow the stored revision 1")));
  }
  EXPECT_EQ((*Get("acme", "s1"))->revision, 1) << "nothing was replaced";
  ASSERT_TRUE(Put(Manifest("acme", "s1", 2)).ok());
  EXPECT_EQ((*Get("acme", "s1"))->revision, 2);
  EXPECT_EQ(store_->Stats().stale, 4u);
  EXPECT_EQ(store_->Stats().sessions, 1);
}

TEST_F(ManifestStoreTest, ACopyReplacesAnyLowerRevisionAndKeepsItsTime) {
  SessionManifest copy = Manifest("t", "s", 5);
  copy.updated_unix_ms = 12'345;
  ASSERT_TRUE(store_->PutCopy(copy, kNever).ok());  // nothing before it
  EXPECT_EQ(**store_->Revision("t", "s"), 5);
  EXPECT_EQ(**Get("t", "s"), copy);
  EXPECT_TRUE(store_->PutCopy(copy, kNever).ok());
  EXPECT_EQ(store_->Stats().puts, 1u);  // the second one changed nothing
  copy.revision = 9;
  ASSERT_TRUE(store_->PutCopy(copy, kNever).ok());
  EXPECT_EQ(**store_->Revision("t", "s"), 9);
  copy.revision = 8;
  EXPECT_EQ(store_->PutCopy(copy, kNever).code(), kAborted);
  copy.revision = 9;
  copy.engine_state = "another worker's";
  const absl::Status other = store_->PutCopy(copy, kNever);
  EXPECT_EQ(other.code(), kAborted);
  EXPECT_THAT(std::string(other.message()), AllOf(HasSubstr("revision 9"), HasSubstr("'s'")));
  ASSERT_TRUE(Put(Manifest("t", "s", 10)).ok());  // the next turn follows a copy
  EXPECT_FALSE(store_->Revision("t", "nobody")->has_value());
}

TEST_F(ManifestStoreTest, OfWritersThatRaceForARevisionOneWins) {
  constexpr int kRounds = 20;
  std::atomic<int> won{0};
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&] {
      for (int64_t revision = 1; revision <= kRounds;) {
        const absl::Status status = Put(Manifest("acme", "s1", revision));
        if (status.ok()) ++won;
        if (status.ok() || (*Get("acme", "s1")).value_or(SessionManifest{}).revision >= revision) ++revision;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(won, kRounds);
  EXPECT_EQ((*Get("acme", "s1"))->revision, kRounds);
}

TEST_F(ManifestStoreTest, ManifestsAndTheAccountSurviveReopening) {
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(Put(Manifest("acme", absl::StrCat("s", i), 1, 10 * i)).ok());
  ASSERT_TRUE(Put(Manifest("acme", "s3", 2)).ok());
  ASSERT_TRUE(store_->Delete("acme", "s4", kNever).ok());
  const ManifestStats before = store_->Stats();
  Reopen();
  EXPECT_EQ(store_->Stats().sessions, 9);
  EXPECT_EQ(store_->Stats().bytes, before.bytes);
  EXPECT_EQ((*Get("acme", "s3"))->revision, 2);
  EXPECT_EQ(*Get("acme", "s4"), std::nullopt);
  EXPECT_EQ(Put(Manifest("acme", "s3", 2)).code(), kAborted) << "revisions go on";
}

TEST_F(ManifestStoreTest, ADeletedSessionIsGoneAndBeginsAgainAtRevisionOne) {
  ASSERT_TRUE(Put(Manifest("acme", "s1")).ok());
  ASSERT_TRUE(Put(Manifest("acme", "s1", 2)).ok());
  EXPECT_EQ(store_->Delete("acme", "s1", kNever), absl::OkStatus());
  EXPECT_EQ(*Get("acme", "s1"), std::nullopt);
  EXPECT_EQ(store_->Delete("acme", "s1", kNever), absl::OkStatus()) << "none there is no error";
  EXPECT_EQ(store_->Stats().bytes, 0u);
  EXPECT_EQ(store_->Stats().sessions, 0);
  EXPECT_EQ(store_->Stats().deletes, 1u);
  EXPECT_EQ(Put(Manifest("acme", "s1", 3)).code(), kAborted);
  EXPECT_EQ(Put(Manifest("acme", "s1", 1)), absl::OkStatus());
}

// Promise P6.
TEST_F(ManifestStoreTest, TenantsDoNotSeeEachOthersSessions) {
  ASSERT_TRUE(Put(Manifest("acme", "shared-name")).ok());
  ASSERT_TRUE(Put(Manifest("acme", "shared-name", 2)).ok());
  ASSERT_EQ(Put(Manifest("acm", "shared-name")), absl::OkStatus()) << "its own revisions";
  ASSERT_EQ(Put(Manifest("acme2", "x")), absl::OkStatus());
  EXPECT_EQ((*Get("acme", "shared-name"))->revision, 2);
  EXPECT_EQ((*Get("acm", "shared-name"))->revision, 1);
  EXPECT_EQ(*Get("acme", "x"), std::nullopt);
  EXPECT_EQ(*Get("ac", "meshared-name"), std::nullopt);
  EXPECT_THAT(Names(*store_->List("acme", 10, "")), ElementsAre("acme/shared-name"));
  EXPECT_THAT(Names(*store_->List("acm", 10, "")), ElementsAre("acm/shared-name"));
  EXPECT_THAT(Names(*store_->List("", 10, "")), ElementsAre("acm/shared-name", "acme/shared-name", "acme2/x"));
  ASSERT_TRUE(store_->Delete("acm", "shared-name", kNever).ok());
  EXPECT_TRUE((*Get("acme", "shared-name")).has_value());
}

TEST_F(ManifestStoreTest, AListingInPagesNamesEachSessionOnceInOrder) {
  std::vector<std::string> all;
  for (int i = 100; i < 125; ++i) {
    ASSERT_TRUE(Put(Manifest("acme", absl::StrCat(i))).ok());
    ASSERT_TRUE(Put(Manifest("other", absl::StrCat(i))).ok());
    all.push_back(absl::StrCat("acme/", i));
  }
  for (const int limit : {1, 7, 25, 1000}) {
    std::vector<std::string> seen;
    std::string token;
    do {
      const auto page = store_->List("acme", limit, token);
      ASSERT_TRUE(page.ok()) << page.status();
      EXPECT_LE(page->sessions.size(), static_cast<size_t>(limit));
      for (const std::string& name : Names(*page)) seen.push_back(name);
      token = page->next_page_token;
    } while (!token.empty());
    EXPECT_EQ(seen, all) << "limit " << limit;
  }
}

TEST_F(ManifestStoreTest, LimitsAndTokensThatNoListingGaveAreRefused) {
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(Put(Manifest("other", absl::StrCat(i))).ok());
  for (const int limit : {0, -1, 1001}) {
    EXPECT_THAT(std::string(store_->List("acme", limit, "").status().message()),
                HasSubstr(absl::StrCat("limit: ", limit, " is not in 1 to 1000")));
  }
  const std::string of_other = store_->List("other", 1, "")->next_page_token;
  ASSERT_FALSE(of_other.empty());
  for (const std::string& token : {std::string("!"), std::string("bWFjbWU"), of_other}) {
    EXPECT_EQ(store_->List("acme", 1, token).status().code(), absl::StatusCode::kInvalidArgument) << token;
  }
}

TEST_F(ManifestStoreTest, AnInvalidManifestIsRefusedBeforeAnythingElse) {
  EXPECT_EQ(Put(Manifest("", "s1")).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(store_->Stats().bytes, 0u);
}

TEST_F(ManifestStoreTest, ADeadlineThatHasPassedStoresNothing) {
  EXPECT_EQ(store_->Put(Manifest("acme", "s1"), now_ - absl::Seconds(1)).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(*Get("acme", "s1"), std::nullopt);
}

TEST_F(ManifestStoreTest, ADamagedManifestIsDataLossListedNoMoreAndCanBeDeleted) {
  for (const char kind : {'h', 'm'}) {
    const std::string session(1, kind);
    ASSERT_TRUE(Put(Manifest("acme", session)).ok());
    FlipByte(kind, "acme", session);
    EXPECT_EQ(Get("acme", session).status().code(), absl::StatusCode::kDataLoss);
  }
  EXPECT_EQ(store_->Stats().corrupt, 2u);
  EXPECT_THAT(Names(*store_->List("acme", 10, "")), ElementsAre("acme/m")) << "its head is well";
  Reopen();
  for (const std::string session : {"h", "m"}) {
    EXPECT_EQ(Get("acme", session).status().code(), absl::StatusCode::kDataLoss) << "left for inspection";
    EXPECT_TRUE(store_->Delete("acme", session, kNever).ok());
    EXPECT_EQ(*Get("acme", session), std::nullopt);
    EXPECT_EQ(Put(Manifest("acme", session)), absl::OkStatus());
  }
}

TEST_F(ManifestStoreTest, ARecordUnderAnotherSessionsKeyIsRefused) {
  ASSERT_TRUE(Put(Manifest("acme", "s1")).ok());
  for (const char kind : {'h', 'm'}) {
    const std::string from = kind + std::string("acme") + '\0' + "s1", to = kind + std::string("evil") + '\0' + "s1";
    const std::string value = **database_->Get(Family::kManifests, from);
    const Mutation mutation = {.family = Family::kManifests, .key = to, .value = value};
    ASSERT_TRUE(database_->Write({&mutation, 1}, Durability::kSynced).ok());
  }
  const auto read = Get("evil", "s1");
  EXPECT_EQ(read.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(read.status().message()), HasSubstr("belongs to another session"));
}

TEST_F(ManifestStoreTest, AFullDiskRefusesTheNewRevisionAndKeepsTheOld) {
  ASSERT_TRUE(Put(Manifest("acme", "s1")).ok());
  const uint64_t bytes = store_->Stats().bytes;
  disk_->set_writes(FaultyFileSystem::Writes::kDiskFull);
  EXPECT_EQ(Put(Manifest("acme", "s1", 2, 5000)).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ((*Get("acme", "s1"))->revision, 1);
  EXPECT_EQ(store_->Stats().bytes, bytes) << "the account is given back";
  disk_->set_writes(FaultyFileSystem::Writes::kWork);
  EXPECT_EQ(Put(Manifest("acme", "s1", 2)), absl::OkStatus());
}

class SmallManifestStoreTest : public ManifestStoreTest {
 protected:
  SmallManifestStoreTest() : ManifestStoreTest(3000) {}
};

TEST_F(SmallManifestStoreTest, TheByteLimitRefusesByNameAndShrinkingIsAlwaysAllowed) {
  ASSERT_TRUE(Put(Manifest("acme", "s1", 1, 1000)).ok());
  ASSERT_TRUE(Put(Manifest("acme", "s2", 1, 1000)).ok());
  const absl::Status refused = Put(Manifest("acme", "s3", 1, 1000));
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()), AllOf(HasSubstr("limit of 3000"), HasSubstr("manifest_bytes")));
  EXPECT_LE(store_->Stats().bytes, 3000u);
  EXPECT_EQ(Put(Manifest("acme", "s2", 2, 2000)).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Put(Manifest("acme", "s2", 2, 10)), absl::OkStatus()) << "the refused revision was not used up";
  EXPECT_EQ(Put(Manifest("acme", "s3", 1, 1000)), absl::OkStatus());
}

}  // namespace
}  // namespace tidepool
