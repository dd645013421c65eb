// One bit flipped anywhere in any file of RocksDB's: values, keys, the file's own index, properties, footers. What the
// damaged part held is lost and nothing else, the service starts, and writes are taken, also when RocksDB would merge
// the file.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cacheservice/manifests/manifest_store_disk.h"
#include "cacheservice/rocksdb/database.h"
#include "cacheservice/tiers/disk_tier.h"
#include "tests/support/blocks.h"
#include "tests/support/paths.h"
#include "tests/support/temp_dir.h"

namespace tidepool {
namespace {

using test::NumberedKey;
using test::NumberedValue;

constexpr int kBlocks = 40, kSessions = 20;
constexpr uint64_t kDiskBytes = uint64_t{32} << 20;
constexpr int kAttempts = 3;  // the first meets the damage, then the files are opened anew

BlockId Id(int number) { return {NumberedKey(number), number % 3}; }
std::string Value(int number) { return NumberedValue(number, number % 3); }

SessionManifest Manifest(const std::string& session, int64_t revision) {
  SessionManifest manifest;
  manifest.tenant = "default";
  manifest.session_id = session;
  manifest.model_fingerprint = "test-model";
  manifest.revision = revision;
  manifest.engine_state = std::string(3000, static_cast<char>('a' + revision));
  return manifest;
}
std::string Session(int number) { return absl::StrCat("s", number); }

struct Storage {
  std::unique_ptr<Database> database;
  std::unique_ptr<DiskTier> tier;
  std::unique_ptr<DiskManifestStore> manifests;

  absl::Status Open(const std::string& data_dir) {
    DatabaseOptions options;
    options.data_dir = data_dir;
    options.write_buffer_bytes = DiskTier::WriteBufferBytes(kDiskBytes);
    options.resume_interval = absl::ZeroDuration();
    absl::StatusOr<std::unique_ptr<Database>> opened = Database::Open(options);
    if (!opened.ok()) return opened.status();
    database = *std::move(opened);
    absl::StatusOr<std::unique_ptr<DiskTier>> blocks = DiskTier::Open(database.get(), kDiskBytes);
    if (!blocks.ok()) return blocks.status();
    tier = *std::move(blocks);
    absl::StatusOr<std::unique_ptr<DiskManifestStore>> sessions =
        DiskManifestStore::Open(database.get(), uint64_t{64} << 20);
    if (!sessions.ok()) return sessions.status();
    manifests = *std::move(sessions);
    return absl::OkStatus();
  }
  absl::Status PutBlock(int number) {
    const DiskPut put = {.id = Id(number), .value = std::make_shared<const std::string>(Value(number))};
    return tier->Put({&put, 1}, /*durable=*/true)[0];
  }
  void Fill(int first_half) {
    for (int i = 0; i < kBlocks / 2; ++i) ASSERT_TRUE(PutBlock(first_half * kBlocks / 2 + i).ok());
    for (int i = 0; i < kSessions / 2; ++i) {
      const std::string session = Session(first_half * kSessions / 2 + i);
      ASSERT_TRUE(manifests->Put(Manifest(session, 1), absl::InfiniteFuture()).ok());
    }
    ASSERT_TRUE(database->Flush().ok());
  }
};

class FileFlipTest : public testing::Test {
 protected:
  // What the file with this bit flipped belongs to, and what has become of what was stored.
  struct Round {
    std::string family;
    bool merged = false;  // each of its files holds one half
    std::set<int> hit;    // values, if the bit is one of theirs
    std::set<int> lost_blocks, lost_sessions;
  };

  void Flip(const std::string& file, std::mt19937* random, Round* round);
  void ReadAll(Storage& storage, Round* round);
  void ExpectWritesAreTaken(Storage& storage, const Round& round);

  const test::TempDir dir_;
  const std::string damaged_ = dir_.File("damaged");
  int closed_ = 0;  // rounds in which no session could be stored
};

void FileFlipTest::Flip(const std::string& file, std::mt19937* random, Round* round) {
  std::string bytes = test::ReadFile(file);
  for (const char* family : {"block_values", "block_index", "manifests", "default"}) {  // among the file's properties
    if (round->family.empty() && bytes.find(family) != std::string::npos) round->family = family;
  }
  // In its data or, as often, in what says where they are.
  const size_t at = (*random)() % 2 == 0 ? bytes.size() - 1 - (*random)() % 1000 : (*random)() % bytes.size();
  for (int number = 0; round->family == "block_values" && number < kBlocks; ++number) {
    const size_t first = bytes.find(Value(number));
    if (first <= at && at < first + Value(number).size()) round->hit.insert(number);
  }
  bytes[at] = static_cast<char>(bytes[at] ^ 1 << (*random)() % 8);
  std::ofstream(file, std::ios::binary) << bytes;
  RecordProperty("flipped", absl::StrCat("byte ", at, " of ", bytes.size()));
}

void FileFlipTest::ReadAll(Storage& storage, Round* round) {
  std::vector<BlockId> ids;
  for (int number = 0; number < kBlocks; ++number) ids.push_back(Id(number));
  const std::vector<absl::StatusOr<BlockValue>> values = storage.tier->Get(ids);
  for (int number = 0; number < kBlocks; ++number) {
    const absl::StatusOr<BlockValue>& value = values[static_cast<size_t>(number)];
    ASSERT_TRUE(value.ok()) << value.status();
    if (*value == nullptr) {
      round->lost_blocks.insert(number);
    } else {
      EXPECT_TRUE(**value == Value(number)) << number;
    }
  }
  EXPECT_EQ(storage.tier->Stats().corrupt, round->lost_blocks.size()) << "each that is lost is counted";
  for (int number = 0; number < kSessions; ++number) {
    const auto got = storage.manifests->Get("default", Session(number), absl::InfiniteFuture());
    if (got.ok()) {
      ASSERT_TRUE(got->has_value()) << number << ": damage is never absence";
      EXPECT_EQ((*got)->engine_state, Manifest(Session(number), 1).engine_state);
    } else {
      EXPECT_TRUE(absl::IsDataLoss(got.status())) << got.status();
      round->lost_sessions.insert(number);
    }
  }
  EXPECT_EQ(storage.manifests->Stats().corrupt, round->lost_sessions.size());
}

// New turns and blocks, and files of them, which RocksDB would merge with the damaged one.
void FileFlipTest::ExpectWritesAreTaken(Storage& storage, const Round& round) {
  const auto put = [&storage](const SessionManifest& manifest) {
    absl::Status stored = absl::UnknownError("");
    for (int attempt = 0; attempt < kAttempts && !stored.ok(); ++attempt) {
      stored = storage.manifests->Put(manifest, absl::InfiniteFuture());
    }
    return stored;
  };
  for (int turn = 1; turn <= 3; ++turn) {
    const absl::Status stored = put(Manifest("s1new", turn));
    if (absl::IsDataLoss(stored)) {  // nobody knows whether the damaged file held it
      EXPECT_EQ(round.family, "manifests") << stored;
      EXPECT_FALSE(storage.manifests->Get("default", "s1new", absl::InfiniteFuture()).ok());
      ++closed_;
      break;
    }
    ASSERT_TRUE(stored.ok()) << "turn " << turn << ": " << stored;
    const absl::Status next = put(Manifest(Session(0), turn + 1));
    EXPECT_TRUE(next.ok() || (round.lost_sessions.contains(0) && absl::IsDataLoss(next))) << next;
    storage.database->Flush().IgnoreError();
  }
  absl::Status stored = absl::UnknownError("");
  for (int attempt = 0; attempt < kAttempts && !stored.ok(); ++attempt) stored = storage.PutBlock(kBlocks);
  EXPECT_TRUE(stored.ok()) << stored;
}

TEST_F(FileFlipTest, AFlippedBitInAnyFileCostsWhatItHitAndNothingElse) {
  constexpr int kRounds = 32;
  // In one, all that was flushed is in one file of each family; in the other some of it was merged, then more came.
  const std::array<std::string, 2> wholes = {dir_.File("flushed"), dir_.File("merged")};
  for (const std::string& whole : wholes) {
    Storage storage;
    ASSERT_TRUE(storage.Open(whole).ok());
    storage.Fill(0);
    if (whole == wholes[1]) {
      ASSERT_TRUE(storage.database->Compact().ok());
    }
    storage.Fill(1);
  }
  std::mt19937 random(11);
  size_t lost_blocks = 0, lost_sessions = 0;
  for (int number = 0; number < kRounds; ++number) {
    std::filesystem::remove_all(damaged_);
    std::filesystem::copy(wholes[number % 2], damaged_, std::filesystem::copy_options::recursive);
    std::vector<std::string> files;
    for (const auto& entry : std::filesystem::directory_iterator(damaged_ + "/db")) {
      if (entry.path().extension() == ".sst") files.push_back(entry.path());
    }
    ASSERT_GE(files.size(), 4u) << "of each family";
    std::sort(files.begin(), files.end());
    const std::string& file = files[number / 2 % files.size()];
    Round round;
    round.merged = number % 2 == 1;
    Flip(file, &random, &round);
    SCOPED_TRACE(absl::StrCat("round ", number, ", a file of ", round.family));
    {
      Storage storage;
      const absl::Status opened = storage.Open(damaged_);
      ASSERT_TRUE(opened.ok()) << opened;
      ReadAll(storage, &round);
      if (!round.hit.empty()) {
        EXPECT_EQ(round.lost_blocks, round.hit);
      }
      if (round.merged) {
        EXPECT_LE(round.lost_blocks.size(), static_cast<size_t>(kBlocks / 2)) << "the other file is whole";
      }
      if (round.family != "block_values" && round.family != "block_index") {
        EXPECT_TRUE(round.lost_blocks.empty());
      }
      if (round.family != "manifests") {
        EXPECT_TRUE(round.lost_sessions.empty());
      }
      ExpectWritesAreTaken(storage, round);
    }
    Storage again;
    const absl::Status opened = again.Open(damaged_);
    ASSERT_TRUE(opened.ok()) << opened;
    EXPECT_TRUE(again.tier->Contains(Id(kBlocks)));
    lost_blocks += round.lost_blocks.size();
    lost_sessions += round.lost_sessions.size();
    if (HasFatalFailure()) return;
  }
  std::printf("%d rounds: %zu blocks and %zu sessions lost; in %d no session could be stored\n", kRounds, lost_blocks,
              lost_sessions, closed_);
  EXPECT_GT(lost_blocks, 0u);
  EXPECT_GT(lost_sessions, 0u);
  EXPECT_LT(closed_, kRounds / 4);
}

}  // namespace
}  // namespace tidepool
