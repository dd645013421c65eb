// The real cache service under load, killed by SIGKILL again and again at a random moment, and verified after each
// start against a file of what it was told and what it had acknowledged (expected_state.h): durable blocks and
// manifests are there, byte for byte; everything else is right or a miss.
//   TIDEPOOL_CRASH_CYCLES   default 40
//   TIDEPOOL_CRASH_SEED     default 1
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/mutex.h"
#include "cacheservice/remote/remote_cache.h"
#include "tests/reliability/expected_state.h"
#include "tests/support/blocks.h"
#include "tests/support/paths.h"
#include "tests/support/process.h"
#include "tests/support/temp_dir.h"

namespace tidepool {
namespace {

using test::ExpectedState;

constexpr int kWriters = 3;  // each with sessions of its own
constexpr int kSessionsOfAWriter = 2;
constexpr size_t kOldBlocks = 300;  // of former cycles, verified beside those of the last

absl::Time Soon() { return absl::Now() + absl::Seconds(120); }

int FromEnvironment(const char* name, int fallback) {
  return std::stoi(test::EnvironmentOr(name, std::to_string(fallback)));
}

SessionManifest Manifest(const std::string& session, const ExpectedState::Turn& turn) {
  std::mt19937 random(turn.seed);
  SessionManifest manifest;
  manifest.tenant = "default";
  manifest.session_id = session;
  manifest.model_fingerprint = "test-model";
  manifest.revision = turn.revision;
  manifest.engine_state = std::string(100 + random() % 30'000, static_cast<char>('a' + random() % 26));
  manifest.token_ids = {static_cast<int32_t>(random() % 1000)};
  return manifest;
}

class CrashLoopTest : public testing::Test {
 protected:
  void Start() {
    const std::string port_file = dir_.File("port");
    std::remove(port_file.c_str());
    process_ = std::make_unique<test::ChildProcess>(std::vector<std::string>{
        test::BinaryPath("tidepool-cache"), absl::StrCat("--listen=127.0.0.1:", port_),
        "--data-dir=" + dir_.File("data"), "--memory-bytes=512KiB", "--disk-bytes=4GiB", "--port-file=" + port_file});
    port_ = process_->WaitForPortFile(port_file);
    RemoteCacheOptions options;
    options.endpoint = absl::StrCat("127.0.0.1:", port_);
    options.layout = test::SmallLayout();
    options.wait_for_service = false;  // who calls a service that was killed is told at once
    cache_ = *RemoteCache::Connect(options);
  }
  // Writes until `most` operations are acknowledged, then the service is killed under what is on its way.
  void WriteAndKill(int most, unsigned seed);
  void Verify();

  test::TempDir dir_;
  const std::string state_file_ = dir_.File("expected");
  ExpectedState state_{state_file_};
  int port_ = 0;
  std::unique_ptr<test::ChildProcess> process_;
  std::unique_ptr<RemoteCache> cache_;
  int next_block_ = 0, first_of_cycle_ = 0;
  int verified_durable_ = 0, verified_manifests_ = 0, pending_seen_ = 0;
};

void CrashLoopTest::WriteAndKill(int most, unsigned seed) {
  first_of_cycle_ = next_block_;
  Mutex mutex;
  CondVar changed;
  int acknowledged = 0;
  const auto count = [&] {
    MutexLock lock(&mutex);
    ++acknowledged;
    changed.SignalAll();
  };
  std::atomic<bool> stop{false};
  std::atomic<int> next_block{next_block_};
  const ExpectedState::Snapshot before = ExpectedState::Read(state_file_);
  std::vector<std::thread> writers;
  for (int writer = 0; writer < kWriters; ++writer) {
    writers.emplace_back([&, writer, random = std::mt19937(seed * kWriters + writer)]() mutable {
      std::vector<int64_t> revisions(kSessionsOfAWriter, 0);
      for (int i = 0; i < kSessionsOfAWriter; ++i) {
        const auto known = before.sessions.find(absl::StrCat("w", writer, "-", i));
        if (known != before.sessions.end()) revisions[i] = known->second.acknowledged.revision;
      }
      while (!stop) {
        for (int i = static_cast<int>(random() % 20); i >= 0; --i) {
          const int number = next_block++;
          const bool durable = random() % 2 == 0;
          state_.BlockBegins(number, durable);
          cache_->Offload({test::NumberedKey(number), number % 3}, test::NumberedValue(number, number % 3), {durable},
                          [this, number, &count](const absl::Status& status) {
                            state_.BlockEnds(number, status.ok());
                            if (status.ok()) count();
                          });
        }
        const int i = static_cast<int>(random() % kSessionsOfAWriter);
        const std::string session = absl::StrCat("w", writer, "-", i);
        const ExpectedState::Turn turn = {.revision = revisions[i] + 1, .seed = static_cast<uint32_t>(random())};
        state_.ManifestBegins(session, turn.revision, turn.seed);
        const absl::Status put = cache_->Put(Manifest(session, turn), Soon());
        state_.ManifestEnds(session, turn.revision, put.ok());
        if (!put.ok()) {
          EXPECT_TRUE(stop) << session << ": " << put;
          break;
        }
        revisions[i] = turn.revision;
        count();
      }
    });
  }
  {
    MutexLock lock(&mutex);
    while (acknowledged < most) changed.Wait(&mutex);
  }
  stop = true;
  process_->Kill();
  for (std::thread& writer : writers) writer.join();
  cache_.reset();  // fails what was not acknowledged
  next_block_ = next_block;
}

void CrashLoopTest::Verify() {
  const ExpectedState::Snapshot expected = ExpectedState::Read(state_file_);
  std::mt19937 random(static_cast<unsigned>(next_block_));
  std::vector<int> numbers;
  for (const auto& [number, block] : expected.blocks) {
    if (number >= first_of_cycle_ || random() % expected.blocks.size() < kOldBlocks) numbers.push_back(number);
  }
  std::vector<BlockId> ids;
  for (const int number : numbers) ids.push_back({test::NumberedKey(number), number % 3});
  const auto values = cache_->FetchBlocks(ids, Soon());
  ASSERT_TRUE(values.ok()) << values.status();
  for (size_t i = 0; i < numbers.size(); ++i) {
    const ExpectedState::Block& block = expected.blocks.at(numbers[i]);
    const std::optional<std::string>& value = (*values)[i];
    if (block.durable && block.stored) {
      EXPECT_TRUE(value.has_value()) << "block " << numbers[i] << " was acknowledged as durable";
      ++verified_durable_;
    }
    if (!value.has_value()) continue;
    EXPECT_TRUE(*value == test::NumberedValue(numbers[i], numbers[i] % 3)) << "wrong bytes of block " << numbers[i];
    pending_seen_ += !block.stored;
  }
  for (const auto& [name, session] : expected.sessions) {
    auto got = cache_->Get("default", name, Soon());
    ASSERT_TRUE(got.ok()) << name << ": " << got.status();
    std::vector<ExpectedState::Turn> allowed = session.pending;
    allowed.push_back(session.acknowledged);
    bool found = false;
    for (const ExpectedState::Turn& turn : allowed) {
      if (!got->has_value()) {
        found |= turn.revision == 0;
        continue;
      }
      SessionManifest manifest = Manifest(name, turn);
      manifest.updated_unix_ms = (*got)->updated_unix_ms;
      if (manifest != **got) continue;
      found = true;
      pending_seen_ += turn.revision != session.acknowledged.revision;
      state_.ManifestBegins(name, turn.revision, turn.seed);  // what is there counts from now on
      state_.ManifestEnds(name, turn.revision, true);
    }
    EXPECT_TRUE(found) << name << ": revision " << (got->has_value() ? (*got)->revision : 0) << " is there, "
                       << session.acknowledged.revision << " was acknowledged";
    ++verified_manifests_;
  }
}

TEST_F(CrashLoopTest, WhatWasAcknowledgedIsThereAfterEachOfManySigkills) {
  const int cycles = FromEnvironment("TIDEPOOL_CRASH_CYCLES", 40);
  const unsigned seed = static_cast<unsigned>(FromEnvironment("TIDEPOOL_CRASH_SEED", 1));
  std::mt19937 random(seed);
  Start();
  for (int cycle = 0; cycle < cycles; ++cycle) {
    WriteAndKill(static_cast<int>(1 + random() % 150), seed * 1000 + static_cast<unsigned>(cycle));
    Start();
    Verify();
    if (HasFailure()) {
      const std::string kept = test::EnvironmentOr("TMPDIR", "/tmp") + "/tidepool-crash-loop";
      std::filesystem::remove_all(kept);
      std::filesystem::copy(dir_.path(), kept, std::filesystem::copy_options::recursive);
      FAIL() << "cycle " << cycle << " of seed " << seed << "; the data and the expected state are in " << kept;
    }
  }
  std::printf("%d cycles: %d durable blocks and %d manifests verified, %d unacknowledged writes had taken effect\n",
              cycles, verified_durable_, verified_manifests_, pending_seen_);
  EXPECT_GT(verified_durable_, cycles);
}

}  // namespace
}  // namespace tidepool
