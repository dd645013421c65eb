// tidepool-cache with a remote tier, as processes: what an operator sees.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "base/mutex.h"
#include "cacheservice/remote/remote_cache.h"
#include "tests/cacheservice/resp/redis_servers.h"
#include "tests/cacheservice/tiers/wide_blocks.h"
#include "tests/support/eventually.h"
#include "tests/support/process.h"
#include "tests/support/temp_dir.h"
#include "tidepool/v1/cache_admin.grpc.pb.h"

namespace tidepool {
namespace {

using test::BinaryPath;
using test::ChildProcess;
using test::Eventually;
using test::ExitStatus;
using test::RedisServer;
using test::WideId;
using test::WideValue;
using testing::HasSubstr;
using testing::Not;
using Breaker = v1::RemoteTierStats;

std::vector<std::string> Argv(std::vector<std::string> flags) {
  flags.insert(flags.begin(), BinaryPath("tidepool-cache"));
  return flags;
}

class CacheProcess {
 public:
  CacheProcess(std::vector<std::string> flags, const std::map<std::string, std::string>& environment = {}) {
    flags.insert(flags.end(), {"--listen=127.0.0.1:0", "--data-dir=" + dir_.File("data"), "--memory-bytes=4MiB",
                               "--disk-bytes=16MiB", "--remote-tier-timeout=30s", "--remote-tier-retry=50ms",
                               "--port-file=" + dir_.File("port")});
    process_ = std::make_unique<ChildProcess>(Argv(flags), environment);
    address_ = "127.0.0.1:" + std::to_string(process_->WaitForPortFile(dir_.File("port")));
    admin_ = v1::CacheAdmin::NewStub(grpc::CreateChannel(address_, grpc::InsecureChannelCredentials()));
    RemoteCacheOptions options;
    options.endpoint = address_;
    options.layout = test::SmallLayout();
    options.layout.kv_heads = 8;
    options.layout.head_dim = 128;
    client_ = *RemoteCache::Connect(options);
  }

  v1::GetStatsResponse Stats() {
    grpc::ClientContext context;
    v1::GetStatsResponse response;
    EXPECT_TRUE(admin_->GetStats(&context, {}, &response).ok());
    return response;
  }
  // What `tidepool admin stats` prints.
  std::string Printed() {
    const test::ProgramResult result =
        test::RunProgram({BinaryPath("tidepool"), "admin", "stats", "--cache=" + address_});
    EXPECT_EQ(result.exit, ExitStatus::Exited(0)) << result.err;
    return result.out;
  }
  // Stored, and as far as it is due copied to the remote tier.
  void Offload(int number) {
    Mutex mutex;
    CondVar changed;
    absl::Status status;
    bool done = false;
    client_->Offload(WideId(number), WideValue(number), {}, [&](const absl::Status& result) {
      MutexLock lock(&mutex);
      status = result;
      done = true;
      changed.SignalAll();
    });
    {
      MutexLock lock(&mutex);
      while (!done) changed.Wait(&mutex);
    }
    ASSERT_TRUE(status.ok()) << status;
  }
  void OffloadAtItsPace(int number) {
    Offload(number);
    ASSERT_TRUE(Eventually([&] { return Stats().remote().backlog_bytes() < (4u << 20); }));
  }
  // How many of the first `count` are there; those are right.
  int Fetched(int count) {
    std::vector<BlockId> ids;
    for (int number = 0; number < count; ++number) ids.push_back(WideId(number));
    const auto values = client_->FetchBlocks(ids, absl::Now() + absl::Seconds(300));
    EXPECT_TRUE(values.ok()) << values.status();
    int found = 0;
    for (int number = 0; values.ok() && number < count; ++number) {
      if (!(*values)[number].has_value()) continue;
      EXPECT_TRUE(*(*values)[number] == WideValue(number)) << number;
      ++found;
    }
    return found;
  }
  // SIGTERM, when no stream is open any more.
  ExitStatus Terminate() {
    client_.reset();
    return process_->Terminate();
  }
  std::string Log() const { return process_->Stderr(); }

 private:
  test::TempDir dir_;
  std::string address_;
  std::unique_ptr<ChildProcess> process_;
  std::unique_ptr<v1::CacheAdmin::Stub> admin_;
  std::unique_ptr<RemoteCache> client_;
};

constexpr int kBlocks = 200;  // of 262 KB: 2.5 times memory and disk

TEST(RemoteTierTest, BlocksOutgrowMemoryAndDiskAndServersMayGo) {
  const test::TempDir dir;
  std::ofstream(dir.File("password")) << "secret\n";
  RedisServer redis({.arguments = {"--requirepass", "secret"}, .login = {.password = "secret"}});
  CacheProcess cache(
      {"--remote-tier=redis://" + redis.endpoint().ToString(), "--remote-tier-password-file=" + dir.File("password")});
  for (int number = 0; number < kBlocks; ++number) cache.OffloadAtItsPace(number);
  EXPECT_EQ(cache.Fetched(kBlocks), kBlocks);
  v1::GetStatsResponse stats = cache.Stats();
  EXPECT_GT(stats.remote().hits(), static_cast<uint64_t>(kBlocks) / 3);
  EXPECT_EQ(stats.remote().dropped(), 0u);
  EXPECT_EQ(stats.remote().breaker(), Breaker::BREAKER_CLOSED);
  EXPECT_THAT(cache.Printed(), HasSubstr("in use, left alone 0 times\n"));

  redis.Kill();
  EXPECT_LT(cache.Fetched(kBlocks), kBlocks);
  cache.Offload(kBlocks);
  EXPECT_TRUE(Eventually([&] {
    cache.Fetched(10);
    return cache.Stats().remote().breaker() == Breaker::BREAKER_OPEN;
  }));
  EXPECT_THAT(cache.Printed(), HasSubstr("last failure: " + redis.endpoint().ToString()));

  redis.Start();
  EXPECT_TRUE(Eventually([&] {
    cache.Fetched(10);
    return cache.Stats().remote().breaker() == Breaker::BREAKER_CLOSED;
  }));
  for (int number = 0; number < kBlocks; ++number) cache.OffloadAtItsPace(number);
  EXPECT_EQ(cache.Fetched(kBlocks), kBlocks);
  EXPECT_EQ(cache.Terminate(), ExitStatus::Exited(0));
}

TEST(RemoteTierTest, OverTlsWithAPasswordFromTheEnvironment) {
  const test::TempDir dir;
  const test::Certificate certificate(dir);
  const RespTlsOptions ours = {
      .ca_file = certificate.cert_file, .cert_file = certificate.cert_file, .key_file = certificate.key_file};
  RedisServer redis({.arguments = {"--tls-cert-file", certificate.cert_file, "--tls-key-file", certificate.key_file,
                                   "--tls-ca-cert-file", certificate.cert_file, "--requirepass", "secret"},
                     .login = {.tls = *RespTlsContext::Make(ours), .password = "secret"}});
  CacheProcess cache(
      {"--remote-tier=rediss://" + redis.endpoint().ToString(), "--remote-tier-ca-file=" + certificate.cert_file,
       "--remote-tier-cert-file=" + certificate.cert_file, "--remote-tier-key-file=" + certificate.key_file,
       "--remote-tier-ttl=1h"},
      {{"TIDEPOOL_REMOTE_TIER_PASSWORD", "secret"}});
  for (int number = 0; number < 100; ++number) cache.OffloadAtItsPace(number);
  EXPECT_EQ(cache.Fetched(100), 100);
  EXPECT_GT(cache.Stats().remote().hits(), 0u);
  EXPECT_GT(redis.Call({"DBSIZE"}).integer, 0);
}

TEST(RemoteTierTest, AWrongPasswordIsSaidAndTheServiceRunsWithoutTheTier) {
  RedisServer redis({.arguments = {"--requirepass", "secret"}, .login = {.password = "secret"}});
  CacheProcess cache({"--remote-tier=redis://:hunter2@" + redis.endpoint().ToString()});
  for (int number = 0; number < 40; ++number) cache.Offload(number);
  EXPECT_EQ(cache.Fetched(45), 40);
  EXPECT_TRUE(Eventually([&] {
    cache.Fetched(45);
    return cache.Stats().remote().breaker() == Breaker::BREAKER_OPEN;
  }));
  EXPECT_THAT(cache.Stats().remote().last_failure(), HasSubstr("AUTH is refused: WRONGPASS"));
  EXPECT_EQ(cache.Terminate(), ExitStatus::Exited(0));
  EXPECT_THAT(cache.Log(), HasSubstr("AUTH is refused"));
  EXPECT_THAT(cache.Log(), Not(HasSubstr("hunter2")));
}

TEST(RemoteTierTest, MistakesInFlagsAreUsageErrors) {
  const test::TempDir dir;
  const std::map<std::string, std::string> mistakes = {
      {"--remote-tier=http://h", "does not begin with redis://"},
      {"--remote-tier=redis://10.0.0.1:6379", "needs --insecure"},
      {"--remote-tier=redis://h:99999", "port '99999'"},
      {"--remote-tier-password-file=/no/such/file", "--remote-tier-password-file: /no/such/file: cannot be read"},
      {"--remote-tier-piece-bytes=lots", "--remote-tier-piece-bytes: 'lots'"},
  };
  for (const auto& [flag, message] : mistakes) {
    const test::ProgramResult result = test::RunProgram(Argv({flag, "--data-dir=" + dir.File("data")}));
    EXPECT_EQ(result.exit, ExitStatus::Exited(2)) << flag << result.err;
    EXPECT_THAT(result.err, HasSubstr(message));
  }
  const test::ProgramResult ttl = test::RunProgram(
      Argv({"--remote-tier=redis://127.0.0.1:1", "--remote-tier-ttl=5ms", "--data-dir=" + dir.File("data")}));
  EXPECT_EQ(ttl.exit, ExitStatus::Exited(2));
  EXPECT_THAT(ttl.err, HasSubstr("remote_tier_ttl: 5ms is not in 1s to"));
}

}  // namespace
}  // namespace tidepool
