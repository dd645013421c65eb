#include "client/cli/top_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"

namespace tidepool::cli {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

TopLook LookAt(absl::Time time) {
  TopLook look;
  look.time = time;
  TopLook::Pod& pod = look.pods.emplace_back();
  pod.address = "10.0.0.1:7070";
  v1::GetStatsResponse& stats = pod.stats;
  stats.set_pod_name("cache-0");
  stats.set_disk_writable(true);
  stats.set_uptime_seconds(7300);
  stats.set_sessions(12);
  stats.mutable_memory()->set_limit_bytes(1 << 30);
  stats.mutable_memory()->set_bytes(512 << 20);
  stats.mutable_disk()->set_limit_bytes(uint64_t{8} << 30);
  TopLook::Worker& worker = look.workers.emplace_back();
  worker.address = "10.0.0.2:7071";
  worker.stats.set_running_sequences(3);
  worker.stats.set_total_pages(100);
  worker.stats.set_used_pages(25);
  return look;
}

struct Looks {
  TopLook before = LookAt(absl::FromUnixSeconds(1'800'000'000));
  TopLook now = LookAt(absl::FromUnixSeconds(1'800'000'002));
};

std::vector<std::string> LinesOf(const std::string& page) {
  std::vector<std::string> lines = absl::StrSplit(page, '\n');
  EXPECT_EQ(lines.back(), "");
  lines.pop_back();
  return lines;
}

TEST(TopViewTest, CountersAreShownAsRatesAndSharesOfTheInterval) {
  Looks looks;
  looks.now.pods[0].stats.mutable_memory()->set_hits(300);
  looks.now.pods[0].stats.mutable_memory()->set_misses(100);
  looks.now.pods[0].stats.set_recalled_rows(2'468);
  looks.before.workers[0].stats.set_generated_tokens(1'000);
  looks.now.workers[0].stats.set_generated_tokens(1'050);
  const std::string page = TopPage(looks.before, looks.now, 0);
  EXPECT_THAT(page, AllOf(HasSubstr("cache-0"), HasSubstr("[########........]"), HasSubstr("512M of 1.0G"),
                          HasSubstr("75.0"), HasSubstr("150"), HasSubstr("1.2k"), HasSubstr("25.0"), HasSubstr("2h")));
  const nlohmann::json json = nlohmann::json::parse(TopJson(looks.before, looks.now));
  EXPECT_EQ(json["interval_seconds"], 2);
  EXPECT_EQ(json["tiers"]["memory"]["hits_per_second"], 150);
  EXPECT_EQ(json["pods"][0]["recalled_rows_per_second"], 1'234);
  EXPECT_EQ(json["pods"][0]["state"], "up");
  EXPECT_EQ(json["workers"][0]["generated_tokens_per_second"], 25);
}

TEST(TopViewTest, ATierThatIsLeftOutForPrefixesSaysSo) {
  Looks looks;
  EXPECT_THAT(TopPage(looks.before, looks.now, 0), Not(HasSubstr("LEFT OUT")));
  looks.now.pods[0].stats.mutable_disk_reads()->set_state(v1::TierReadStats::STATE_LEFT_OUT);
  EXPECT_THAT(TopPage(looks.before, looks.now, 0),
              HasSubstr("LEFT OUT for prefixes, which are computed faster, in 1 pods"));
  const nlohmann::json json = nlohmann::json::parse(TopJson(looks.before, looks.now));
  EXPECT_EQ(json["tiers"]["disk"]["left_out_pods"], 1);
  EXPECT_EQ(json["tiers"]["memory"]["left_out_pods"], 0);
}

TEST(TopViewTest, NoLineIsWiderThanATerminalWhateverTheNamesAre) {
  Looks looks;
  for (TopLook* look : {&looks.before, &looks.now}) {
    look->pods[0].address = std::string(200, 'a');
    look->workers[0].address = std::string(200, 'w');
    for (int i = 0; i < 30; ++i) {
      v1::TenantStats& tenant = *look->pods[0].stats.add_tenants();
      tenant.set_tenant(std::string(100, static_cast<char>('a' + i % 26)) + std::to_string(i) + "\x1b[2J");
      tenant.set_memory_bytes(~uint64_t{0});
      tenant.set_disk_bytes(~uint64_t{0});
      tenant.mutable_quota()->set_memory_bytes(~uint64_t{0});
      v1::StreamStats& stream = *look->pods[0].stats.add_streams();
      stream.set_id(static_cast<uint64_t>(i));
      stream.set_peer(std::string(90, 'p'));
      stream.set_bytes(~uint64_t{0});
      stream.set_mean_seconds(1e9);
      stream.set_longest_seconds(1e9);
    }
    look->pods.push_back(look->pods[0]);
    look->pods[1].status = absl::UnavailableError(std::string(300, 'x'));
  }
  const std::string page = TopPage(looks.before, looks.now, 0);
  for (const std::string& line : LinesOf(page)) EXPECT_LE(line.size(), 80u) << line;
  EXPECT_THAT(page, Not(HasSubstr("\x1b"))) << "names cannot move the cursor";
  EXPECT_THAT(page, AllOf(HasSubstr("DOWN"), HasSubstr("more"), HasSubstr("faster")));
  EXPECT_LE(LinesOf(TopPage(looks.before, looks.now, 24)).size(), 24u);
}

TEST(TopViewTest, NothingOfTheLastColumnsIsCutOff) {
  Looks looks;
  looks.now.pods[0].stats.mutable_memory()->set_corrupt(7);
  looks.now.workers[0].stats.set_lost_rows(84);
  for (TopLook* look : {&looks.before, &looks.now}) look->pods[0].stats.add_tenants()->set_tenant("acme");
  looks.now.pods[0].stats.mutable_tenants(0)->set_quota_evictions(66);
  const std::vector<std::string> lines = LinesOf(TopPage(looks.before, looks.now, 0));
  for (const auto& [begin, end] : std::map<std::string, std::string>{{"TIER ", " CORRUPT"},
                                                                     {"memory ", " 7"},
                                                                     {"WORKER ", " LOST/s"},
                                                                     {"10.0.0.2:7071 ", " 42"},
                                                                     {"TENANT ", " EVICT/s"},
                                                                     {"acme ", " 33"}}) {
    EXPECT_THAT(lines, Contains(AllOf(StartsWith(begin), EndsWith(end))));
  }
}

TEST(TopViewTest, TheSlowestStreamComesFirst) {
  Looks looks;
  for (const double mean : {0.001, 0.5, 0.02}) {
    v1::StreamStats& stream = *looks.now.pods[0].stats.add_streams();
    stream.set_id(static_cast<uint64_t>(mean * 1000));
    stream.set_peer("ipv4:1.2.3.4:5");
    stream.set_kind(v1::StreamStats::KIND_RECALL);
    stream.set_mean_seconds(mean);
  }
  const nlohmann::json json = nlohmann::json::parse(TopJson(looks.before, looks.now));
  EXPECT_EQ(json["streams"][0]["mean_seconds"], 0.5);
  EXPECT_EQ(json["streams"][2]["mean_seconds"], 0.001);
  EXPECT_EQ(json["streams"][0]["kind"], "recall");
  EXPECT_THAT(TopPage(looks.before, looks.now, 0), HasSubstr("500ms"));
}

TEST(TopViewTest, APodThatBeganAnewHasNoNegativeRates) {
  Looks looks;
  looks.before.pods[0].stats.mutable_memory()->set_hits(1'000'000);
  looks.now.pods[0].stats.mutable_memory()->set_hits(10);
  looks.before.pods[0].stats.set_recalled_rows(5);
  EXPECT_EQ(nlohmann::json::parse(TopJson(looks.before, looks.now))["tiers"]["memory"]["hits_per_second"], 0);
  // Nor has one that did not answer before a burst of all that it ever did.
  looks.before.pods[0].status = absl::UnavailableError("away");
  looks.now.pods[0].stats.set_recalled_rows(1'000);
  EXPECT_EQ(nlohmann::json::parse(TopJson(looks.before, looks.now))["pods"][0]["recalled_rows_per_second"], 0);
}

TEST(TopViewTest, NumbersStayShort) {
  EXPECT_EQ(ShortNumber(0), "0");
  EXPECT_EQ(ShortNumber(7.25), "7.2");
  EXPECT_EQ(ShortNumber(999), "999");
  EXPECT_EQ(ShortNumber(1'234), "1.2k");
  EXPECT_EQ(ShortNumber(56'789), "57k");
  EXPECT_EQ(ShortNumber(999'999), "1.0M");
  for (double value = 0.1; value < 1e18; value *= 3.7) EXPECT_LE(ShortNumber(value).size(), 5u) << value;
}

}  // namespace
}  // namespace tidepool::cli
