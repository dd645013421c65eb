#include "cacheservice/shards/pod_list.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace tidepool {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;

TEST(PodListTest, AListNamesItsAddressesInOrder) {
  const auto list = ParsePodList("--cache", "a:1,10.0.0.1:7070,[::1]:7,unix:/tmp/x");
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_THAT(list->addresses, ElementsAre("a:1", "10.0.0.1:7070", "[::1]:7", "unix:/tmp/x"));
  EXPECT_FALSE(list->single());
  EXPECT_FALSE(list->from_dns());
  EXPECT_TRUE(ParsePodList("--cache", "a:1")->single());
}

TEST(PodListTest, ADnsNameIsResolvedLater) {
  const auto list = ParsePodList("--cache", "dns:///tidepool-cache.tidepool.svc:7070");
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_TRUE(list->from_dns());
  EXPECT_FALSE(list->single());
  EXPECT_EQ(list->dns_host, "tidepool-cache.tidepool.svc");
  EXPECT_EQ(list->dns_port, "7070");
}

TEST(PodListTest, WhatIsWrongIsNamed) {
  for (const char* text : {"", "a", "a:", ":1", "a:0", "a:65536", "a:1,", "a:1,,b:2", "a:x", "unix:", "dns:///",
                           "dns:///a", "dns:///a:0", "dns:///a:1,b:2"}) {
    const auto list = ParsePodList("--peers", text);
    ASSERT_FALSE(list.ok()) << text;
    EXPECT_THAT(std::string(list.status().message()), HasSubstr("--peers: '"));
  }
  EXPECT_THAT(std::string(ParsePodList("--cache", "a:1,b:1,a:1").status().message()),
              HasSubstr("'a:1' is given twice"));
  std::string many = "p:1";
  for (int port = 2; port <= 65; ++port) absl::StrAppend(&many, ",p:", port);
  EXPECT_THAT(std::string(ParsePodList("--cache", many).status().message()), HasSubstr("at most 64"));
}

TEST(PodListTest, ANameThatResolvesGivesAddressesAndOneThatDoesNotIsUnavailable) {
  EXPECT_THAT(*ResolvePods(*ParsePodList("--cache", "dns:///localhost:7070")), Contains("127.0.0.1:7070"));
  EXPECT_THAT(*ResolvePods(*ParsePodList("--cache", "dns:///[::1]:7070")), ElementsAre("[::1]:7070"));
  EXPECT_TRUE(absl::IsUnavailable(ResolvePods(*ParsePodList("--cache", "dns:///a..b:7070")).status()));
}

}  // namespace
}  // namespace tidepool
