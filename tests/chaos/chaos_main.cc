// chaos: three cache pods on small disks above a Redis cluster, two workers, and clients whose every answer is compared
// with the one without faults, while pods, network, workers, disks and Redis fail by a seeded schedule. Prints a table,
// with --json the same as JSON; exit status 0 when nothing was wrong, failed, lost or left behind.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/flags.h"
#include "tests/chaos/calm_answers.h"
#include "tests/chaos/chaos_clients.h"
#include "tests/chaos/fault_kinds.h"
#include "tests/e2e/fleet.h"
#include "tests/support/eventually.h"
#include "tests/support/paths.h"

ABSL_FLAG(double, minutes, 5, "how long faults come");
ABSL_FLAG(double, seconds, 0, "in place of --minutes");
ABSL_FLAG(uint64_t, seed, 1, "of faults and requests");
ABSL_FLAG(int, clients, 32, "at once");
ABSL_FLAG(int, contexts, 16, "different ones, 1 to 200");
ABSL_FLAG(std::string, json, "", "file for the results as JSON");
ABSL_FLAG(bool, logs, false, "print what the processes logged when something is wrong");

namespace tidepool::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// Open descriptors of a process.
int Descriptors(pid_t pid) {
  const std::filesystem::directory_iterator all(absl::StrCat("/proc/", pid, "/fd"));
  return static_cast<int>(std::distance(begin(all), end(all)));
}

// Connections to a port of 127.0.0.1 that its owner has not closed: established, or closed by the other end.
int Connections(int port) {
  int count = 0;
  std::ifstream table("/proc/net/tcp");
  std::string line;
  for (std::getline(table, line); std::getline(table, line);) {
    std::istringstream fields(line);
    std::string number, local, remote, state;
    fields >> number >> local >> remote >> state;
    const bool ours = std::stoi(local.substr(local.find(':') + 1), nullptr, 16) == port;
    count += ours && (state == "01" || state == "08");
  }
  return count;
}

constexpr int kRedisMasters = 3, kRedisNodes = 2 * kRedisMasters;

struct Left {
  std::vector<std::string> what;
  void Check(const std::string& name, int64_t value, int64_t most) {
    if (value > most) what.push_back(absl::StrCat(name, ": ", value, ", at rest ", most));
  }
};

class Scenario {
 public:
  Scenario()
      : seed_(absl::GetFlag(FLAGS_seed)),
        redis_(kRedisMasters, kRedisNodes - kRedisMasters),
        disks_(dir_.path(), 3, 256),
        fleet_(
            {.model = ModelPath("lookup.gguf"),
             .pods = 3,
             .workers = 2,
             .pod_flags = {"--memory-bytes=4MiB", "--disk-bytes=24MiB", "--remote-tier=" + redis_.url(),
                           "--remote-tier-ttl=60s", "--remote-tier-timeout=500ms", "--remote-tier-retry=1s"},
             .worker_flags = {"--cache-copies=2", "--cache-slow-start=5s", "--threads=1", "--device-kv-bytes=256MiB"},
             .proxies = true,
             .data_dirs = disks_.dirs()}),
        lives_(fleet_.workers()) {}

  int Run();

 private:
  bool Well();
  bool RedisWell();
  void WaitForWell();
  // What the processes logged, with --logs.
  void PrintLogs();
  void Storm(ChaosClients& clients);
  // What is there when nothing runs, as far as it may not grow.
  std::map<std::string, int> AtRest();
  Left LeftBehind(const std::map<std::string, int>& at_rest);
  int Report(const Left& left, double seconds);

  const uint64_t seed_;
  TempDir dir_;
  RedisCluster redis_;
  SmallDisks disks_;
  Fleet fleet_;
  WorkerLives lives_;
  Tally tally_;
  std::map<std::string, int> faults_;
};

bool Scenario::Well() { return fleet_.SeesAll(0) && fleet_.SeesAll(1); }

// Whoever is master and whoever replica by now.
bool Scenario::RedisWell() {
  for (int node = 0; node < kRedisNodes; ++node) {
    if (!absl::StrContains(redis_.node(node).Call({"CLUSTER", "INFO"}).text, "cluster_state:ok")) return false;
    if (absl::StrContains(redis_.node(node).Call({"CLUSTER", "NODES"}).text, "fail")) return false;
    if (absl::StrContains(redis_.node(node).Call({"INFO", "replication"}).text, "master_link_status:down"))
      return false;
  }
  return true;
}

void Scenario::PrintLogs() {
  if (!absl::GetFlag(FLAGS_logs)) return;
  for (int worker = 0; worker < fleet_.workers(); ++worker) {
    std::printf("--- worker %d\n%s", worker, fleet_.worker(worker).Stderr().c_str());
  }
  for (int pod = 0; pod < fleet_.pods(); ++pod) {
    std::printf("--- pod %d\n%s", pod, fleet_.pod(pod).Stderr().c_str());
  }
}

void Scenario::WaitForWell() {
  if (!Eventually([this] { return Well(); })) throw std::runtime_error("the workers do not see all pods");
}

std::map<std::string, int> Scenario::AtRest() {
  std::map<std::string, int> counts;
  for (int worker = 0; worker < fleet_.workers(); ++worker) {
    counts[absl::StrCat("worker ", worker, " descriptors")] = Descriptors(fleet_.worker(worker).pid());
  }
  return counts;
}

Left Scenario::LeftBehind(const std::map<std::string, int>& at_rest) {
  Left left;
  const auto look = [&] {
    left.what.clear();
    for (int worker = 0; worker < fleet_.workers(); ++worker) {
      const v1::GetWorkerStatsResponse stats = fleet_.WorkerStats(worker);
      const std::string name = absl::StrCat("worker ", worker, " ");
      left.Check(name + "running sequences", stats.running_sequences(), 0);
      left.Check(name + "waiting requests", stats.waiting_requests(), 0);
      left.Check(name + "pages", stats.used_pages(), 0);
    }
    for (int pod = 0; pod < fleet_.pods(); ++pod) {
      const v1::GetStatsResponse stats = fleet_.PodStats(pod);
      const std::string name = absl::StrCat("pod ", pod, " ");
      left.Check(name + "streams", static_cast<int64_t>(stats.open_streams()), 2 * fleet_.workers());
      left.Check(name + "bytes under way", static_cast<int64_t>(stats.staging_bytes()), 0);
      left.Check(name + "sessions", static_cast<int64_t>(stats.sessions()), 0);
      // Each worker has three channels, and we have one.
      const std::string address = fleet_.pod_address(pod);
      left.Check(name + "connections", Connections(std::stoi(address.substr(address.rfind(':') + 1))),
                 3 * fleet_.workers() + 1);
    }
    for (const auto& [name, count] : AtRest()) left.Check(name, count, at_rest.at(name));
    return left.what.empty();
  };
  // Streams of workers that were killed, and connections that nobody uses, go within some seconds.
  for (const auto until = steady_clock::now() + std::chrono::seconds(30); !look() && steady_clock::now() < until;) {
    Tick(milliseconds(200));
  }
  return left;
}

void Scenario::Storm(ChaosClients& clients) {
  const double seconds =
      absl::GetFlag(FLAGS_seconds) > 0 ? absl::GetFlag(FLAGS_seconds) : 60 * absl::GetFlag(FLAGS_minutes);
  // A short run has short faults, so that there are some of each.
  const milliseconds longest(seconds < 120 ? 3000 : 8000), shortest(seconds < 120 ? 1000 : 2000);
  auto options = [&](const char* name, uint64_t number, int targets, milliseconds rest) {
    return FaultTrack::Options{.name = name,
                               .seed = seed_ * 10 + number,
                               .targets = targets,
                               .shortest = shortest,
                               .longest = longest,
                               .rest = rest};
  };
  FaultTrack tracks[] = {
      {options("pods", 1, fleet_.pods(), milliseconds(1000)), PodFaults(fleet_, disks_, tally_),
       [this] { return Well(); }},
      {options("workers", 2, fleet_.workers(), milliseconds(6000)), WorkerFaults(fleet_, lives_),
       [this] { return Well(); }},
      {options("redis", 3, kRedisNodes, milliseconds(4000)), RedisFaults(redis_), [this] { return RedisWell(); }}};
  clients.Start();
  const auto end = steady_clock::now() + milliseconds(static_cast<int64_t>(seconds * 1000));
  for (bool calm = false; !calm;) {
    const bool more = steady_clock::now() < end;
    calm = !more;
    for (FaultTrack& track : tracks) {
      calm = track.Step(more) && calm;
      if (track.waiting() > std::chrono::minutes(2)) {
        PrintLogs();
        throw std::runtime_error(absl::StrCat(track.name(), ": not well two minutes after '", track.last(), "'"));
      }
    }
    Tick(milliseconds(50));
  }
  clients.Finish();
  for (const FaultTrack& track : tracks) faults_.insert(track.counts().begin(), track.counts().end());
}

int Scenario::Run() {
  WaitForWell();
  std::fprintf(stderr, "chaos: answers without faults\n");
  const CalmAnswers calm(fleet_.worker_address(0), absl::GetFlag(FLAGS_contexts));
  ChaosClients clients({.clients = absl::GetFlag(FLAGS_clients), .seed = seed_}, &fleet_, &calm, &lives_, &tally_);
  {
    CalmAnswers same(fleet_.worker_address(1), 1);  // so that it has all its connections, too
  }
  const std::map<std::string, int> at_rest = AtRest();
  const absl::Time start = absl::Now();
  Storm(clients);
  WaitForWell();
  std::fprintf(stderr, "chaos: sessions that were kept\n");
  clients.AskKept();
  const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
  return Report(LeftBehind(at_rest), seconds);
}

int Scenario::Report(const Left& left, double seconds) {
  const Tally::Counts counts = tally_.counts();
  const std::vector<std::pair<std::string, int64_t>> numbers = {
      {"answers compared", counts.answers},
      {"  of them turns of sessions", counts.session_turns},
      {"  with a context that was computed again", counts.recomputed_turns},
      {"sessions ended by their clients", counts.sessions_ended},
      {"sessions asked once more at the end", counts.sessions_kept},
      {"attempts whose own worker went, tried again", counts.own_worker_gone},
      {"turns stored whose worker was killed before saying so", counts.stored_unheard},
      {"wrong answers", counts.wrong},
      {"requests failed by a worker that was there", counts.failed},
      {"acknowledged turns lost", counts.lost},
      {"things left behind", static_cast<int64_t>(left.what.size())}};
  std::printf("chaos, seed %llu: %d clients, 3 cache pods, 2 workers, 3 Redis masters with replicas, %.0f s\n\n",
              static_cast<unsigned long long>(seed_), absl::GetFlag(FLAGS_clients), seconds);
  for (const auto& [fault, times] : faults_) std::printf("  %-58s %6d\n", fault.c_str(), times);
  if (!disks_.refused().empty()) std::printf("  no full disk here: %s\n", disks_.refused().c_str());
  std::printf("\n");
  for (const auto& [name, number] : numbers)
    std::printf("  %-58s %6lld\n", name.c_str(), static_cast<long long>(number));
  std::printf("  %-58s %6.1f\n", "longest attempt, seconds", counts.worst_seconds);
  std::vector<std::string> complaints = tally_.complaints();
  for (const std::string& what : left.what) complaints.push_back("left behind: " + what);
  for (const std::string& complaint : complaints) std::printf("%s\n", complaint.c_str());
  if (const std::string file = absl::GetFlag(FLAGS_json); !file.empty()) {
    nlohmann::json json = {{"seed", seed_},     {"seconds", seconds},       {"clients", absl::GetFlag(FLAGS_clients)},
                           {"faults", faults_}, {"complaints", complaints}, {"worst_seconds", counts.worst_seconds}};
    for (const auto& [name, number] : numbers) json["counts"][name.substr(name.find_first_not_of(' '))] = number;
    std::ofstream(file) << json.dump(1) << "\n";
  }
  const bool good = counts.wrong + counts.failed + counts.lost == 0 && left.what.empty() && counts.answers > 0;
  if (!good) PrintLogs();
  std::printf("%s\n", good ? "nothing wrong, failed, lost or left behind" : "NOT GOOD");
  return good ? 0 : 1;
}

}  // namespace
}  // namespace tidepool::test

int main(int argc, char** argv) {
  const absl::StatusOr<std::vector<std::string>> rest = tidepool::ParseFlags(argc, argv);
  if (!rest.ok() || !rest->empty()) {
    std::fprintf(stderr, "chaos: %s\n", rest.ok() ? "takes flags only" : rest.status().ToString().c_str());
    return 2;
  }
  try {
    return tidepool::test::Scenario().Run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "chaos: %s\n", error.what());
    return 1;
  }
}
