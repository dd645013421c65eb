// The network between a worker and its cache service fails in every way that a proxy can make it fail, and hosts in
// network namespaces of their own are cut off: no answer differs, no request fails that need not, deadlines hold.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/generation_client.h"
#include "tests/e2e/fleet.h"
#include "tests/e2e/lookup_load.h"
#include "tests/support/eventually.h"
#include "tests/support/paths.h"

namespace tidepool {
namespace {

using std::chrono::milliseconds;
using test::Ask;
using test::Eventually;
using test::FaultProxy;
using test::Fleet;
using test::LookupAnswer;
using test::LookupPolicy;
using test::LookupTurn;

constexpr int kTurns = 6;

using Ids = std::vector<int32_t>;

// One session after another's turns, as fast as they are answered. Before each turn, `before(turn)`.
std::vector<Ids> RunSession(const std::string& worker, const std::string& name, int context, LookupPolicy policy,
                            const std::function<void(int)>& before = nullptr) {
  GenerationClient client(worker);
  std::vector<Ids> turns;
  for (int turn = 0; turn < kTurns; ++turn) {
    if (before) before(turn);
    const LookupAnswer answer = Ask(client, {.context = context, .policy = policy, .turn = turn, .session = name},
                                    absl::Now() + absl::FromChrono(test::kProcessTimeout));
    EXPECT_TRUE(answer.status.ok()) << name << ", turn " << turn << ": " << answer.status;
    EXPECT_EQ(answer.usage.lost_rows(), 0) << name << ", turn " << turn;
    turns.push_back(answer.ids);
  }
  EXPECT_TRUE(client.EndSession(name).ok()) << name;
  return turns;
}

class NetworkTest : public testing::Test {
 protected:
  static constexpr int kSessions = 3;
  static constexpr LookupPolicy kPolicies[kSessions] = {LookupPolicy::kFull, LookupPolicy::kSnapKvSync,
                                                        LookupPolicy::kSnapKvSync};

  NetworkTest()
      : fleet_({.model = test::ModelPath("lookup.gguf"),
                .pods = 1,
                .pod_flags = {"--memory-bytes=1MiB"},
                .proxies = true}) {
    for (int i = 0; i < kSessions; ++i) {
      calm_.push_back(RunSession(fleet_.worker_address(0), absl::StrCat("calm-", i), i, kPolicies[i]));
    }
  }
  FaultProxy& proxy() { return fleet_.proxy(0, 0); }

  // Sessions side by side, each turn of the first preceded by `fault(turn)`: their answers are what they were without.
  void ExpectTheSame(const std::function<void(int)>& fault) {
    std::vector<std::vector<Ids>> turns(kSessions);
    std::vector<std::thread> clients;
    for (int i = 0; i < kSessions; ++i) {
      clients.emplace_back([&, i] {
        turns[i] = RunSession(fleet_.worker_address(0), absl::StrCat("storm-", i), i, kPolicies[i],
                              [&](int turn) { i == 0 ? fault(turn) : void(); });
      });
    }
    for (std::thread& client : clients) client.join();
    for (int i = 0; i < kSessions; ++i) EXPECT_EQ(turns[i], calm_[i]) << "session " << i;
    EXPECT_EQ(fleet_.WorkerStats(0).lost_rows(), 0);
    EXPECT_GT(fleet_.WorkerStats(0).recalled_rows(), 0);
    EXPECT_TRUE(Eventually([&] { return fleet_.WorkerStats(0).used_pages() == 0; }));
    EXPECT_TRUE(Eventually([&] { return fleet_.PodStats(0).staging_bytes() == 0; }));
  }

  Fleet fleet_;
  std::vector<std::vector<Ids>> calm_;
};

TEST_F(NetworkTest, DelayedAndThrottledNothingChangesButTime) {
  proxy().Set({.delay = milliseconds(2), .jitter = milliseconds(3)});
  ExpectTheSame([&](int turn) {
    if (turn == kTurns / 2) proxy().Set({.bytes_per_second = 4'000'000});
  });
}

TEST_F(NetworkTest, ConnectionsThatAreResetAreMadeAnewAndNothingIsLost) {
  ExpectTheSame([&](int) { proxy().Drop(); });
  EXPECT_GT(fleet_.WorkerStats(0).cache_reconnects(), 0);
}

TEST_F(NetworkTest, HalfClosedConnectionsAreMadeAnewAndNothingIsLost) {
  ExpectTheSame([&](int) { proxy().HalfClose(); });
  EXPECT_GT(fleet_.WorkerStats(0).cache_reconnects(), 0);
}

TEST_F(NetworkTest, RefusedConnectionsAreTriedAgainUntilTheyAreTaken) {
  std::thread taken_again;
  ExpectTheSame([&](int turn) {
    if (turn != 2) return;
    const int64_t before = fleet_.WorkerStats(0).cache_reconnects();
    proxy().Set({.refuse = true});
    proxy().Drop();
    taken_again = std::thread([this, before] {
      EXPECT_TRUE(Eventually([&] { return fleet_.WorkerStats(0).cache_reconnects() >= before + 3; }));
      proxy().Clear();
    });
  });
  taken_again.join();
}

TEST_F(NetworkTest, InABlackholeDeadlinesHoldAndWhatNeedsNoCacheIsAnswered) {
  GenerationClient client(fleet_.worker_address(0));
  const LookupTurn alone = {.context = 0, .policy = LookupPolicy::kSnapKv, .turn = 3};
  const LookupAnswer before = Ask(client, alone);
  ASSERT_TRUE(before.status.ok());
  const LookupTurn session = {.context = 1, .policy = LookupPolicy::kSnapKvSync, .session = "held"};
  EXPECT_EQ(Ask(client, session).ids, calm_[1][0]);

  proxy().Set({.blackhole = true});
  const LookupAnswer during = Ask(client, alone, absl::Now() + absl::FromChrono(test::kProcessTimeout));
  EXPECT_TRUE(during.status.ok()) << during.status;
  EXPECT_EQ(during.ids, before.ids);
  LookupTurn next = session;
  next.turn = 1;
  const LookupAnswer late = Ask(client, next, absl::Now() + absl::Seconds(1));
  EXPECT_TRUE(absl::IsDeadlineExceeded(late.status)) << late.status;
  EXPECT_TRUE(Eventually([&] { return fleet_.WorkerStats(0).running_sequences() == 0; }));

  // The turn that came too late left the session as it was, or was stored when the way was free again.
  proxy().Clear();
  EXPECT_TRUE(client.EndSession("held").ok());
  EXPECT_EQ(Ask(client, session).ids, calm_[1][0]);
  EXPECT_TRUE(client.EndSession("held").ok());
  EXPECT_TRUE(Eventually([&] { return fleet_.WorkerStats(0).used_pages() == 0; }));
  ExpectTheSame([](int) {});
}

// Hosts: network namespaces, each joined to ours by a pair of virtual interfaces. Names and addresses are this
// process's own, so that tests may run side by side.
class Hosts {
 public:
  explicit Hosts(int count) {
    const std::string id = absl::StrCat("tp", getpid() % 100'000, "-");
    for (int i = 0; i < count; ++i) {
      names_.push_back(absl::StrCat(id, i));
      // 10.64.0.0/10, a /30 for each: .1 is our end.
      const int net = (getpid() % 16'384) * 16 + i * 4;
      auto address = [net](int last) {
        return absl::StrCat("10.", 64 + (net >> 16), ".", (net >> 8) & 255, ".", (net & 255) + last);
      };
      addresses_.push_back(address(2));
      Ip({"netns", "add", names_[i]});
      Ip({"link", "add", Ours(i), "type", "veth", "peer", "name", "eth0", "netns", names_[i]});
      Ip({"addr", "add", address(1) + "/30", "dev", Ours(i)});
      Ip({"link", "set", Ours(i), "up"});
      Ip({"-n", names_[i], "addr", "add", address(2) + "/30", "dev", "eth0"});
      Ip({"-n", names_[i], "link", "set", "eth0", "up"});
      Ip({"-n", names_[i], "link", "set", "lo", "up"});
      Ip({"-n", names_[i], "route", "add", "default", "via", address(1)});
    }
  }
  ~Hosts() {
    for (size_t i = 0; i < names_.size(); ++i) {
      test::RunProgram({"ip", "link", "del", Ours(static_cast<int>(i))});
      test::RunProgram({"ip", "netns", "del", names_[i]});
    }
  }

  // Empty, or why this machine does not allow it.
  const std::string& refused() const { return refused_; }
  const std::vector<std::string>& names() const { return names_; }
  const std::vector<std::string>& addresses() const { return addresses_; }
  // Nothing reaches the host and nothing leaves it, and nobody is told.
  void CutOff(int host) { Ip({"-n", names_[host], "link", "set", "eth0", "down"}); }
  void Join(int host) {
    Ip({"-n", names_[host], "link", "set", "eth0", "up"});
    test::RunProgram({"ip", "-n", names_[host], "route", "add", "default", "via", Gateway(host)});
  }

 private:
  std::string Ours(int host) const { return names_[host] + "v"; }
  std::string Gateway(int host) const {
    const std::string& address = addresses_[host];
    const size_t dot = address.rfind('.');
    return absl::StrCat(address.substr(0, dot), ".", std::stoi(address.substr(dot + 1)) - 1);
  }
  void Ip(std::vector<std::string> arguments) {
    if (!refused_.empty()) return;
    arguments.insert(arguments.begin(), "ip");
    const test::ProgramResult result = test::RunProgram(arguments);
    if (result.exit == test::ExitStatus::Exited(0)) return;
    for (const std::string& argument : arguments) refused_ += argument + " ";
    refused_ += "failed: " + result.err;
  }

  std::vector<std::string> names_, addresses_;
  std::string refused_;
};

TEST(NetworkHostsTest, AHostThatIsCutOffIsLeftOutAndComesBackAndNoTokenDiffers) {
  Hosts hosts(3);
  if (!hosts.refused().empty()) GTEST_SKIP() << "no network namespaces here: " << hosts.refused();
  Fleet fleet({.model = test::ModelPath("lookup.gguf"),
               .pod_flags = {"--memory-bytes=1MiB", "--insecure"},
               .worker_flags = {"--cache-copies=2", "--cache-slow-start=0s"},
               .namespaces = hosts.names(),
               .hosts = hosts.addresses()});
  ASSERT_TRUE(Eventually([&] { return fleet.AllUp(0); }));
  const std::string worker = fleet.worker_address(0);
  static constexpr int kSessions = 3;
  std::vector<std::vector<Ids>> calm(kSessions), storm(kSessions);
  for (int i = 0; i < kSessions; ++i) {
    calm[i] = RunSession(worker, absl::StrCat("calm-", i), i, LookupPolicy::kSnapKvSync);
  }
  std::vector<std::thread> clients;
  std::atomic<bool> cut_off{false};
  for (int i = 0; i < kSessions; ++i) {
    clients.emplace_back([&, i] {
      storm[i] = RunSession(worker, absl::StrCat("storm-", i), i, LookupPolicy::kSnapKvSync, [&](int turn) {
        if (turn == 2 && !cut_off.exchange(true)) hosts.CutOff(1);
        if (turn == kTurns - 1) {
          EXPECT_TRUE(Eventually([&] { return fleet.StateOf(0, 1) == v1::CachePodStats::STATE_DOWN; }));
        }
      });
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(storm, calm);
  EXPECT_EQ(fleet.StateOf(0, 1), v1::CachePodStats::STATE_DOWN);
  hosts.Join(1);
  EXPECT_TRUE(Eventually([&] { return fleet.AllUp(0); }));
  for (int i = 0; i < kSessions; ++i) {
    EXPECT_EQ(RunSession(worker, absl::StrCat("after-", i), i, LookupPolicy::kSnapKvSync), calm[i]);
  }
  EXPECT_EQ(fleet.WorkerStats(0).lost_rows(), 0);
  EXPECT_TRUE(hosts.refused().empty()) << hosts.refused();
}

}  // namespace
}  // namespace tidepool
