#include "client/http/api_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "tests/support/temp_dir.h"

namespace tidepool::http {
namespace {

using testing::HasSubstr;
using testing::Not;

// Of "test".
constexpr char kDigestLine[] = "initech sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\n";

void Write(const std::string& path, const std::string& text) {
  std::ofstream(path + ".new", std::ios::binary) << text;
  std::filesystem::rename(path + ".new", path);  // another file each time, as editors and Kubernetes do it
}

TEST(ApiKeySetTest, KeysAndTheirDigestsStandForTenants) {
  const auto keys =
      ApiKeySet::Parse(std::string("# ours\n\n acme\tkey-of-acme \r\nacme key-two-of-acme\n") + kDigestLine);
  ASSERT_TRUE(keys.ok()) << keys.status();
  EXPECT_EQ(keys->TenantOf("key-of-acme"), "acme");
  EXPECT_EQ(keys->TenantOf("key-two-of-acme"), "acme");
  EXPECT_EQ(keys->TenantOf("test"), "initech");
  for (const char* wrong : {"", "key-of-acm", "key-of-acmE", "key-of-acme ", "acme",
                            "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}) {
    EXPECT_EQ(keys->TenantOf(wrong), std::nullopt) << wrong;
  }
  EXPECT_THAT(keys->Tenants(), testing::ElementsAre("acme", "initech"));
}

TEST(ApiKeySetTest, MistakesNameTheLineAndNeverTheKey) {
  const std::pair<const char*, const char*> cases[] = {
      {"acme secret-key-1\nacme\n", "line 2: 1 words"}, {"acme secret key\n", "line 1: 3 words"},
      {"ac/me secret-key\n", "line 1: a tenant is"},    {"acme secret\n", "line 1: the key has 6 bytes"},
      {"acme sha256:secret-key\n", "line 1: sha256:"},  {"# nothing\n", "has no keys"},
  };
  for (const auto& [text, named] : cases) {
    const auto keys = ApiKeySet::Parse(text);
    EXPECT_THAT(std::string(keys.status().message()), HasSubstr(named)) << text;
    EXPECT_THAT(std::string(keys.status().message()), Not(HasSubstr("secret"))) << text;
  }
}

TEST(ApiKeysTest, WithoutAFileEverybodyIsTheDefaultTenant) {
  ApiKeys keys;
  EXPECT_EQ(*keys.TenantOf(""), "default");
  EXPECT_EQ(*keys.TenantOf("Bearer whatever"), "default");
  EXPECT_FALSE(*keys.ReloadIfChanged());
}

TEST(ApiKeysTest, TheHeaderIsBearerAndAKey) {
  test::TempDir dir;
  Write(dir.File("keys"), "acme key-of-acme\n");
  const auto keys = ApiKeys::Open(dir.File("keys"));
  ASSERT_TRUE(keys.ok()) << keys.status();
  EXPECT_EQ(*(*keys)->TenantOf("Bearer key-of-acme"), "acme");
  EXPECT_EQ(*(*keys)->TenantOf("bearer  key-of-acme "), "acme");
  for (const char* wrong : {"", "key-of-acme", "Basic key-of-acme", "Bearer", "Bearer ", "Bearer key-of-acm"}) {
    EXPECT_EQ((*keys)->TenantOf(wrong).status().code(), absl::StatusCode::kUnauthenticated) << wrong;
  }
}

TEST(ApiKeysTest, AChangedFileCountsAndAWrongOneDoesNot) {
  test::TempDir dir;
  EXPECT_THAT(std::string(ApiKeys::Open(dir.File("none")).status().message()), HasSubstr("cannot read"));
  Write(dir.File("keys"), "acme first-key\n");
  const auto keys = ApiKeys::Open(dir.File("keys"));
  ASSERT_TRUE(keys.ok()) << keys.status();
  EXPECT_FALSE(*(*keys)->ReloadIfChanged());

  Write(dir.File("keys"), "acme second-key\n");
  EXPECT_TRUE(*(*keys)->ReloadIfChanged());
  EXPECT_FALSE((*keys)->TenantOf("Bearer first-key").ok());
  EXPECT_TRUE((*keys)->TenantOf("Bearer second-key").ok());

  Write(dir.File("keys"), "acme\n");
  EXPECT_THAT(std::string((*keys)->ReloadIfChanged().status().message()), HasSubstr("line 1"));
  EXPECT_FALSE(*(*keys)->ReloadIfChanged()) << "said once";
  EXPECT_TRUE((*keys)->TenantOf("Bearer second-key").ok());

  std::filesystem::remove(dir.File("keys"));
  EXPECT_FALSE((*keys)->ReloadIfChanged().ok());
  EXPECT_TRUE((*keys)->TenantOf("Bearer second-key").ok());
}

}  // namespace
}  // namespace tidepool::http
