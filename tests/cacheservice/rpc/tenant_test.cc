// A cache service that knows who calls: what workers and admins of one tenant can reach, over real connections.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/mutex.h"
#include "cacheservice/remote/remote_cache.h"
#include "cacheservice/rpc/cache_server.h"
#include "security/access_table.h"
#include "tests/support/access_lines.h"
#include "tests/support/blocks.h"
#include "tests/support/temp_dir.h"
#include "tidepool/v1/cache_admin.grpc.pb.h"

namespace tidepool {
namespace {

using test::TokenLine;

using testing::HasSubstr;

class CacheTenantTest : public testing::Test {
 protected:
  CacheTenantTest() {
    std::ofstream(dir_.File("access")) << TokenLine("a-worker", "a", "worker") << TokenLine("b-worker", "b", "worker")
                                       << TokenLine("all-workers", "*", "worker") << TokenLine("a-admin", "a", "admin")
                                       << TokenLine("admin", "*", "admin");
    CacheServerOptions options;
    options.listen = "127.0.0.1:0";
    options.cache.data_dir = dir_.File("data");
    options.security.access_file = dir_.File("access");
    server_ = *CacheServer::Start(options);
  }

  static std::shared_ptr<const ChannelSecurity> With(const std::string& token) {
    return *ChannelSecurity::Create({.token = token});
  }
  std::unique_ptr<RemoteCache> Worker(const std::string& token, const std::string& tenant) {
    RemoteCacheOptions options;
    options.endpoint = server_->address();
    options.tenant = tenant;
    options.layout = test::SmallLayout();
    options.security = With(token);
    return *RemoteCache::Connect(options);
  }
  static absl::Status Offload(RemoteCache& worker) {
    absl::Status result;
    Mutex mutex;
    CondVar changed;
    bool done = false;
    worker.Offload({test::NumberedKey(1), 0}, test::NumberedValue(1, 0), {.durable = true},
                   [&](const absl::Status& status) {
                     MutexLock lock(&mutex);
                     result = status;
                     done = true;
                     changed.SignalAll();
                   });
    MutexLock lock(&mutex);
    while (!done) changed.Wait(&mutex);
    return result;
  }
  static absl::Status Recall(RemoteCache& worker) {
    absl::Status result;
    Mutex mutex;
    CondVar changed;
    bool done = false;
    worker.Recall({{{test::NumberedKey(1), 0}, 0, 1}}, Soon(), [&](const absl::StatusOr<RecalledRows>& rows) {
      MutexLock lock(&mutex);
      result = rows.status();
      done = true;
      changed.SignalAll();
    });
    MutexLock lock(&mutex);
    while (!done) changed.Wait(&mutex);
    return result;
  }
  static absl::Time Soon() { return absl::Now() + absl::Seconds(60); }
  static SessionManifest Manifest(const std::string& tenant) {
    SessionManifest manifest;
    manifest.tenant = tenant;
    manifest.session_id = "s";
    manifest.model_fingerprint = "f";
    manifest.revision = 1;
    return manifest;
  }

  test::TempDir dir_;
  std::unique_ptr<CacheServer> server_;
};

TEST_F(CacheTenantTest, AWorkerOfOneTenantReachesThatTenantsSessionsOnly) {
  auto a = Worker("a-worker", "a"), b = Worker("b-worker", "b"), all = Worker("all-workers", "x");
  ASSERT_EQ(a->Put(Manifest("a"), Soon()), absl::OkStatus());
  ASSERT_EQ(all->Put(Manifest("b"), Soon()), absl::OkStatus()) << "a worker of all tenants stores for each";
  EXPECT_TRUE((*a->Get("a", "s", Soon())).has_value());
  EXPECT_TRUE((*all->Get("a", "s", Soon())).has_value());
  for (const absl::Status& refused :
       {a->Get("b", "s", Soon()).status(), a->Put(Manifest("b"), Soon()), a->Delete("b", "s", Soon())}) {
    EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition) << "not what the worker's own caller did wrong";
    EXPECT_THAT(std::string(refused.message()), HasSubstr("tenant: 'b' is not that of token "));
  }
  EXPECT_TRUE((*b->Get("b", "s", Soon())).has_value()) << "still there";
}

TEST_F(CacheTenantTest, StreamsOfAnotherTenantAreRefused) {
  auto a = Worker("a-worker", "a"), posing = Worker("a-worker", "b");
  EXPECT_EQ(Offload(*a), absl::OkStatus());
  EXPECT_EQ(Recall(*a), absl::OkStatus());
  for (const absl::Status& refused : {Offload(*posing), Recall(*posing)}) {
    EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(refused.message()), HasSubstr("tenant: 'b' is not that of token "));
  }
}

TEST_F(CacheTenantTest, AWorkerThatIsNotKnownIsToldSo) {
  auto unknown = Worker("wrong", "a"), admin = Worker("admin", "a");
  EXPECT_THAT(std::string(Offload(*unknown).message()), HasSubstr("the token is not known here"));
  EXPECT_THAT(std::string(Recall(*unknown).message()), HasSubstr("the token is not known here"));
  EXPECT_THAT(std::string(unknown->Get("a", "s", Soon()).status().message()), HasSubstr("the token is not known here"));
  EXPECT_THAT(std::string(unknown->LookupPrefix({}, Soon()).status().message()), HasSubstr("is not known here"));
  EXPECT_THAT(std::string(unknown->FetchBlocks({}, Soon()).status().message()), HasSubstr("is not known here"));
  EXPECT_THAT(std::string(Offload(*admin).message()), HasSubstr("needs role worker"));
}

TEST_F(CacheTenantTest, AnAdminOfOneTenantSeesThatTenantsSessions) {
  auto all = Worker("all-workers", "x");
  ASSERT_EQ(all->Put(Manifest("a"), Soon()), absl::OkStatus());
  ASSERT_EQ(all->Put(Manifest("b"), Soon()), absl::OkStatus());
  auto list = [this](const std::string& token, const std::string& tenant, int* sessions) {
    grpc::ChannelArguments arguments;
    const auto security = With(token);
    const auto stub = v1::CacheAdmin::NewStub(OpenChannel(security.get(), server_->address(), &arguments));
    grpc::ClientContext context;
    v1::ListSessionsRequest request;
    request.set_tenant(tenant);
    v1::ListSessionsResponse response;
    const grpc::Status status = stub->ListSessions(&context, request, &response);
    *sessions = response.sessions_size();
    return status.error_code();
  };
  int sessions = 0;
  EXPECT_EQ(list("a-admin", "", &sessions), grpc::StatusCode::OK);
  EXPECT_EQ(sessions, 1);
  EXPECT_EQ(list("a-admin", "b", &sessions), grpc::StatusCode::PERMISSION_DENIED);
  EXPECT_EQ(list("admin", "b", &sessions), grpc::StatusCode::OK);
  EXPECT_EQ(sessions, 1);
  EXPECT_EQ(list("admin", "", &sessions), grpc::StatusCode::OK);
  EXPECT_EQ(sessions, 0) << "of tenant default";
}

}  // namespace
}  // namespace tidepool
