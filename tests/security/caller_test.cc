#include "security/caller.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tidepool {
namespace {

using testing::HasSubstr;

Caller Of(Role role, const std::string& tenant) { return {.name = "token 12345678", .tenant = tenant, .role = role}; }

TEST(CallerTest, EachRoleMayCallWhatIsListedForItAndNothingElse) {
  const Caller user = Of(Role::kUser, "a"), worker = Of(Role::kWorker, "*"), admin = Of(Role::kAdmin, "a"),
               operators = Of(Role::kAdmin, "*");
  struct Case {
    const char* method;
    bool user, worker, admin, operators;
  };
  const Case cases[] = {
      {"/tidepool.v1.Generation/Generate", true, false, true, true},
      {"/tidepool.v1.Generation/EndSession", true, false, true, true},
      {"/tidepool.v1.Generation/GetWorkerStats", false, false, false, true},
      {"/tidepool.v1.CacheStore/Offload", false, true, false, false},
      {"/tidepool.v1.CacheStore/GetManifest", false, true, false, false},
      {"/tidepool.v1.CacheAdmin/GetStats", false, false, false, true},
      {"/tidepool.v1.CacheAdmin/ListSessions", false, false, true, true},
      {"/tidepool.v1.CacheAdmin/DropSession", false, false, true, true},
      {"/tidepool.v1.CacheAdmin/Explain", false, false, true, true},
      {"/tidepool.v1.CacheAdmin/Pin", false, false, true, true},
      {"/tidepool.v1.CacheAdmin/Unpin", false, false, true, true},
      {"/tidepool.v1.CacheAdmin/ListPins", false, false, true, true},
      {"/tidepool.v1.CacheAdmin/SetQuota", false, false, false, true},
      {"/tidepool.v1.CacheAdmin/Scrub", false, false, false, true},
      {"/tidepool.v1.CacheAdmin/SetConfig", false, false, false, true},
      {"/tidepool.v1.CacheAdmin/NotYetWritten", false, false, false, true},
      {"/tidepool.v1.Unheard/Of", false, false, false, true},
      {"/tidepool.v1.GenerationX/Generate", false, false, false, true},
      {"", false, false, false, true},
      {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", true, true, true, true},
      {"/grpc.health.v1.Health/Check", true, true, true, true},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(MayCall(user, c.method).ok(), c.user) << c.method;
    EXPECT_EQ(MayCall(worker, c.method).ok(), c.worker) << c.method;
    EXPECT_EQ(MayCall(admin, c.method).ok(), c.admin) << c.method;
    EXPECT_EQ(MayCall(operators, c.method).ok(), c.operators) << c.method;
    EXPECT_TRUE(MayCall(Caller::Anyone(), c.method).ok()) << c.method;
  }
  const absl::Status refused = MayCall(user, "/tidepool.v1.CacheStore/Lookup");
  EXPECT_EQ(refused.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(refused.message()),
              HasSubstr("/tidepool.v1.CacheStore/Lookup: needs role worker; token 12345678 is user of tenant a"));
}

TEST(CallerTest, OnlyHealthChecksAreOpen) {
  EXPECT_TRUE(IsOpenMethod("/grpc.health.v1.Health/Watch"));
  for (const char* method : {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                             "/tidepool.v1.Generation/Generate", "/grpc.health.v1.HealthX/Check", ""}) {
    EXPECT_FALSE(IsOpenMethod(method)) << method;
  }
}

TEST(CallerTest, ARequestIsAboutTheCallersTenant) {
  const Caller one = Of(Role::kAdmin, "a"), all = Of(Role::kAdmin, "*");
  EXPECT_EQ(*one.TenantFor(""), "a");
  EXPECT_EQ(*one.TenantFor("a"), "a");
  EXPECT_EQ(one.TenantFor("b").status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(one.TenantFor("*").status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(*all.TenantFor(""), "default");
  EXPECT_EQ(*all.TenantFor("b"), "b");
}

}  // namespace
}  // namespace tidepool
