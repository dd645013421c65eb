// A worker that lives on while its cache service is killed and started again.
#include <gtest/gtest.h>

#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "base/mutex.h"
#include "cacheservice/remote/remote_cache.h"
#include "tests/support/blocks.h"
#include "tests/support/process.h"
#include "tests/support/temp_dir.h"

namespace tidepool {
namespace {

class SigkillTest : public testing::Test {
 protected:
  SigkillTest() { Start(); }
  void Start() {
    const std::string port_file = dir_.File("port");
    std::remove(port_file.c_str());
    process_ = std::make_unique<test::ChildProcess>(std::vector<std::string>{
        test::BinaryPath("tidepool-cache"), "--listen=127.0.0.1:" + std::to_string(port_),
        "--data-dir=" + dir_.File("data"), "--memory-bytes=512KiB", "--port-file=" + port_file});
    port_ = process_->WaitForPortFile(port_file);
  }

  test::TempDir dir_;
  int port_ = 0;
  std::unique_ptr<test::ChildProcess> process_;
};

TEST_F(SigkillTest, WhatWasNotAcknowledgedIsSentAgainAndEveryBlockIsThereInTheEnd) {
  constexpr int kBlocks = 400, kDuring = 50;
  Mutex mutex;
  CondVar changed;
  std::map<int, std::vector<absl::Status>> answers;  // by block
  RemoteCacheOptions options;
  options.endpoint = "127.0.0.1:" + std::to_string(port_);
  options.layout = test::SmallLayout();
  auto cache = *RemoteCache::Connect(options);
  int sent = 0;
  auto offload = [&](int end) {
    for (; sent < end; ++sent) {
      cache->Offload({test::NumberedKey(sent), sent % 3}, test::NumberedValue(sent, sent % 3), {true},
                     [&, block = sent](absl::Status status) {
                       MutexLock lock(&mutex);
                       answers[block].push_back(std::move(status));
                       changed.SignalAll();
                     });
    }
  };
  offload(kBlocks - 2 * kDuring);
  for (const size_t acknowledged : {20u, 120u}) {
    {
      MutexLock lock(&mutex);
      while (answers.size() < acknowledged) changed.Wait(&mutex);
    }
    EXPECT_EQ(process_->Kill(), test::ExitStatus::Signaled(SIGKILL));
    offload(sent + kDuring);  // nobody acknowledges these, however fast the machine is
    Start();
  }
  {
    MutexLock lock(&mutex);
    while (answers.size() < kBlocks) changed.Wait(&mutex);
  }
  std::vector<BlockId> ids;
  for (int block = 0; block < kBlocks; ++block) ids.push_back({test::NumberedKey(block), block % 3});
  const auto values = cache->FetchBlocks(ids, absl::Now() + absl::Seconds(60));
  ASSERT_TRUE(values.ok()) << values.status();
  for (int block = 0; block < kBlocks; ++block)
    EXPECT_EQ((*values)[block], test::NumberedValue(block, block % 3)) << block;
  EXPECT_GE(cache->Stats().reconnects, 2);
  EXPECT_EQ(cache->Stats().offload_failures, 0);
  cache.reset();
  for (const auto& [block, statuses] : answers) {
    ASSERT_EQ(statuses.size(), 1u) << block;
    EXPECT_TRUE(statuses[0].ok()) << statuses[0];
  }
}

TEST_F(SigkillTest, SigtermEndsTheServiceInOrderWithAWorkerConnected) {
  RemoteCacheOptions options;
  options.endpoint = "127.0.0.1:" + std::to_string(port_);
  options.layout = test::SmallLayout();
  auto cache = *RemoteCache::Connect(options);
  Mutex mutex;
  CondVar changed;
  int stored = 0;
  for (int block = 0; block < 10; ++block) {
    cache->Offload({test::NumberedKey(block), 0}, test::NumberedValue(block, 0), {}, [&](const absl::Status& status) {
      MutexLock lock(&mutex);
      stored += status.ok();
      changed.SignalAll();
    });
  }
  {
    MutexLock lock(&mutex);
    while (stored < 10) changed.Wait(&mutex);
  }
  EXPECT_EQ(process_->Terminate(), test::ExitStatus::Exited(0));
  Start();
  const std::vector<BlockId> ids = {{test::NumberedKey(0), 0}, {test::NumberedKey(9), 0}};
  const auto values = cache->FetchBlocks(ids, absl::Now() + absl::Seconds(60));
  ASSERT_TRUE(values.ok()) << values.status();
  EXPECT_EQ((*values)[0], test::NumberedValue(0, 0)) << "memory only, but the end was orderly";
  EXPECT_EQ((*values)[1], test::NumberedValue(9, 0));
}

}  // namespace
}  // namespace tidepool
