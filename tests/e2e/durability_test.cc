// What the cache service has acknowledged as durable survives SIGKILL.
#include <gtest/gtest.h>

#include <atomic>
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

class CacheProcess {
 public:
  CacheProcess() { Start(); }
  void Start() {
    const std::string port_file = dir_.File("port");
    std::remove(port_file.c_str());
    process_ = std::make_unique<test::ChildProcess>(std::vector<std::string>{
        test::BinaryPath("tidepool-cache"), "--listen=127.0.0.1:" + std::to_string(port_),
        "--data-dir=" + dir_.File("data"), "--memory-bytes=512KiB", "--port-file=" + port_file});
    port_ = process_->WaitForPortFile(port_file);
  }
  void Kill() { process_->Kill(); }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

 private:
  test::TempDir dir_;
  int port_ = 0;
  std::unique_ptr<test::ChildProcess> process_;
};

TEST(DurabilityTest, AcknowledgedBlocksAndManifestsSurviveSigkill) {
  CacheProcess cache;
  RemoteCacheOptions options;
  options.endpoint = cache.address();
  options.layout = test::SmallLayout();
  int next_block = 0, next_revision = 1;
  for (int round = 0; round < 3; ++round) {
    std::vector<int> acknowledged;
    int manifests = 0;
    {
      auto remote = *RemoteCache::Connect(options);
      Mutex mutex;
      CondVar changed;
      const int first = next_block;
      for (; next_block < first + 300; ++next_block) {
        remote->Offload({test::NumberedKey(next_block), 0}, test::NumberedValue(next_block, 0), {true},
                        [&, block = next_block](const absl::Status& status) {
                          MutexLock lock(&mutex);
                          if (status.ok()) acknowledged.push_back(block);
                          changed.SignalAll();
                        });
      }
      for (int i = 0; i < 3; ++i) {
        SessionManifest manifest;
        manifest.tenant = "default";
        manifest.session_id = "s";
        manifest.model_fingerprint = "f";
        manifest.revision = next_revision;
        manifest.engine_state = std::string(10'000, static_cast<char>('a' + i));
        ASSERT_TRUE(remote->Put(manifest, absl::Now() + absl::Seconds(60)).ok());
        ++next_revision;
        ++manifests;
      }
      {
        MutexLock lock(&mutex);
        while (acknowledged.size() < 50) changed.Wait(&mutex);
      }
      cache.Kill();  // in the middle of the rest
    }                // the client fails what was not acknowledged
    cache.Start();
    auto remote = *RemoteCache::Connect(options);
    std::vector<BlockId> ids;
    for (int block : acknowledged) ids.push_back({test::NumberedKey(block), 0});
    const auto values = remote->FetchBlocks(ids, absl::Now() + absl::Seconds(60));
    ASSERT_TRUE(values.ok()) << values.status();
    for (size_t i = 0; i < ids.size(); ++i)
      EXPECT_EQ((*values)[i], test::NumberedValue(acknowledged[i], 0)) << "block " << acknowledged[i];
    const auto manifest = remote->Get("default", "s", absl::Now() + absl::Seconds(60));
    ASSERT_TRUE(manifest.ok() && manifest->has_value()) << manifest.status();
    EXPECT_EQ((*manifest)->revision, next_revision - 1);
    EXPECT_EQ((*manifest)->engine_state, std::string(10'000, 'c'));
  }
}

}  // namespace
}  // namespace tidepool
