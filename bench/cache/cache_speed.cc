// Speed of a cache service of one pod, memory tier, beside the raw gRPC stream (the limit) and redis-server. Each side
// is a process of its own on this machine. They take turns, the first one changing from round to round; every value
// read is compared, after the clock has stopped.
//
//   scripts/bench cache --only wire, or
//   cache_speed [--starts=1] [--rounds=7] [--turn_mib=32] [--transports=tcp,unix] [--kib=64,256,1024] [--json=FILE]
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/flags.h"
#include "base/freed_memory.h"
#include "base/mutex_checks.h"
#include "bench/cache/round_trips.h"
#include "bench/cache/side.h"

ABSL_FLAG(int, rounds, 7, "turns of each side after each start: 1 to 1000");
ABSL_FLAG(int, starts, 1,
          "times that all servers are started anew: 1 to 100; where a process's memory and threads come to lie makes a "
          "difference of a tenth");
ABSL_FLAG(int, turn_mib, 32, "MiB stored and read in a turn: 1 to 256");
ABSL_FLAG(std::vector<std::string>, transports, std::vector<std::string>({"tcp", "unix"}), "of tcp, unix");
ABSL_FLAG(std::vector<std::string>, kib, std::vector<std::string>({"64", "256", "1024"}),
          "value sizes: multiples of 32 up to 4096");
ABSL_FLAG(std::vector<std::string>, sides, std::vector<std::string>({"sync", "callback", "kept", "tidepool", "redis"}),
          "of sync, callback (raw gRPC), kept (callback with a copy and a verification at the receiver), tidepool, "
          "redis");
ABSL_FLAG(std::string, mooncake, "",
          "a Python that has Mooncake Store (bench/cache/mooncake_peer.py); empty: without it");
ABSL_FLAG(int, redis_depth, 4, "Redis commands under way at a time: 1 to 1024");
ABSL_FLAG(int, round_trips, 2000, "recalls and pings timed for each transport: 0 to 1000000");
ABSL_FLAG(std::string, json, "", "file for all that was measured");

namespace tidepool::bench {
namespace {

constexpr int kKibOfHead = 32;

// What one side did in one round.
struct Turn {
  double gigabytes_per_second = 0;
  double client_ms_per_mb = 0, server_ms_per_mb = 0;  // CPU time
};
using Turns = std::map<std::string, std::vector<Turn>>;  // by side

double SecondsOf(clockid_t clock) {
  timespec time{};
  TIDEPOOL_CHECK(clock_gettime(clock, &time) == 0);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

template <typename Work>
Turn Timed(const Side& side, double bytes, Work work) {
  clockid_t server = 0;
  TIDEPOOL_CHECK(clock_getcpuclockid(side.pid(), &server) == 0);
  const double server_before = SecondsOf(server), client_before = SecondsOf(CLOCK_PROCESS_CPUTIME_ID);
  const double before = SecondsOf(CLOCK_MONOTONIC);
  work();
  const double took = SecondsOf(CLOCK_MONOTONIC) - before;
  const double per_mb = 1e3 / (bytes / 1e6);
  return {.gigabytes_per_second = bytes / 1e9 / took,
          .client_ms_per_mb = (SecondsOf(CLOCK_PROCESS_CPUTIME_ID) - client_before) * per_mb,
          .server_ms_per_mb = (SecondsOf(server) - server_before) * per_mb};
}

void TakeTurn(Side* side, absl::Span<const Item> items, Turns* puts, Turns* gets) {
  double bytes = 0;
  for (const Item& item : items) bytes += static_cast<double>(item.value->size());
  side->PreparePut(items);
  (*puts)[side->name()].push_back(Timed(*side, bytes, [&] { side->Put(items); }));
  ReadValues read;
  (*gets)[side->name()].push_back(Timed(*side, bytes, [&] { read = side->Get(items); }));
  side->Compare(read, items);
}

struct Spread {
  double median = 0, low = 0, high = 0;
};
Spread SpreadOf(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return {.median = values[values.size() / 2], .low = values.front(), .high = values.back()};
}

Spread RateOf(const std::vector<Turn>& turns) {
  std::vector<double> rates;
  for (const Turn& turn : turns) rates.push_back(turn.gigabytes_per_second);
  return SpreadOf(rates);
}

// Of the turns of the same rounds.
Spread RatioOf(const std::vector<Turn>& turns, const std::vector<Turn>& others) {
  std::vector<double> ratios;
  for (size_t i = 0; i < turns.size(); ++i) {
    ratios.push_back(turns[i].gigabytes_per_second / others[i].gigabytes_per_second);
  }
  return SpreadOf(ratios);
}

nlohmann::json ToJson(const std::vector<Turn>& turns) {
  nlohmann::json rows = nlohmann::json::array();
  for (const Turn& turn : turns) {
    rows.push_back({{"gigabytes_per_second", turn.gigabytes_per_second},
                    {"client_cpu_ms_per_mb", turn.client_ms_per_mb},
                    {"server_cpu_ms_per_mb", turn.server_ms_per_mb}});
  }
  return rows;
}

// The faster of the two raw streams, by its median.
std::string BestRaw(const Turns& turns) {
  std::string best;
  double rate = 0;
  for (const auto& [name, of_side] : turns) {
    if (name.rfind("raw", 0) != 0 || RateOf(of_side).median <= rate) continue;
    best = name;
    rate = RateOf(of_side).median;
  }
  return best;
}

void Print(const std::string& cell, const char* what, const Turns& turns) {
  const std::string raw = BestRaw(turns);
  for (const auto& [name, of_side] : turns) {
    const Spread rate = RateOf(of_side);
    std::vector<double> client, server;
    for (const Turn& turn : of_side) {
      client.push_back(turn.client_ms_per_mb);
      server.push_back(turn.server_ms_per_mb);
    }
    std::printf("%-14s %s  %-20s %5.2f (%.2f-%.2f)  %5.2f %5.2f", cell.c_str(), what, name.c_str(), rate.median,
                rate.low, rate.high, SpreadOf(client).median, SpreadOf(server).median);
    if (name == "tidepool") {
      for (const std::string& other : {raw, std::string("kept"), std::string("redis"), std::string("mooncake")}) {
        const auto found = turns.find(other);
        if (found == turns.end()) continue;
        const Spread ratio = RatioOf(of_side, found->second);
        std::printf("   %.2f (%.2f-%.2f) of %s", ratio.median, ratio.low, ratio.high, other.c_str());
      }
    }
    std::printf("\n");
  }
}

std::unique_ptr<Side> MakeSide(const std::string& name, int kv_heads, size_t memory_bytes, bool unix_socket) {
  if (name == "sync" || name == "callback") return MakeRawSide(name == "callback", unix_socket);
  if (name == "kept") return MakeKeptSide(unix_socket);
  if (name == "tidepool") return MakeTidepoolSide(kv_heads, memory_bytes, unix_socket);
  return MakeRedisSide(absl::GetFlag(FLAGS_redis_depth), unix_socket);
}

// One start of all sides, for one transport and one size.
void TakeTurns(const std::string& transport, int kv_heads, Turns* puts, Turns* gets) {
  const size_t turn_bytes = static_cast<size_t>(absl::GetFlag(FLAGS_turn_mib)) << 20;
  std::vector<std::unique_ptr<Side>> sides;
  for (const std::string& name : absl::GetFlag(FLAGS_sides)) {
    sides.push_back(MakeSide(name, kv_heads, kMemoryTurns * turn_bytes, transport == "unix"));
  }
  if (transport == "tcp" && !absl::GetFlag(FLAGS_mooncake).empty()) {
    sides.push_back(MakeMooncakeSide(absl::GetFlag(FLAGS_mooncake)));
  }
  const int count = ItemsIn(kv_heads, turn_bytes);
  Turns warming;
  for (int turn = 0; turn < kTurns + static_cast<int>(kMemoryTurns); ++turn) {  // until all are on disk
    const std::vector<Item> items = MakeItems(kv_heads, count, turn % kTurns);
    for (const std::unique_ptr<Side>& side : sides) TakeTurn(side.get(), items, &warming, &warming);
  }
  for (int round = 0; round < absl::GetFlag(FLAGS_rounds); ++round) {
    const std::vector<Item> items = MakeItems(kv_heads, count, (round + static_cast<int>(kMemoryTurns)) % kTurns);
    for (size_t i = 0; i < sides.size(); ++i) {
      TakeTurn(sides[(i + static_cast<size_t>(round)) % sides.size()].get(), items, puts, gets);
    }
  }
}

void MeasureCell(const std::string& transport, int kib, nlohmann::json* json) {
  Turns puts, gets;
  for (int start = 0; start < absl::GetFlag(FLAGS_starts); ++start) {
    TakeTurns(transport, kib / kKibOfHead, &puts, &gets);
  }
  const std::string cell = absl::StrCat(transport, " ", kib, " KiB");
  Print(cell, "put", puts);
  Print(cell, "get", gets);
  std::fflush(stdout);
  for (const auto& [name, turns] : puts) (*json)[cell]["put"][name] = ToJson(turns);
  for (const auto& [name, turns] : gets) (*json)[cell]["get"][name] = ToJson(turns);
}

bool FlagsAreGood() {
  const int rounds = absl::GetFlag(FLAGS_rounds), mib = absl::GetFlag(FLAGS_turn_mib);
  const int depth = absl::GetFlag(FLAGS_redis_depth), trips = absl::GetFlag(FLAGS_round_trips);
  const int starts = absl::GetFlag(FLAGS_starts);
  bool good = starts >= 1 && starts <= 100 && rounds >= 1 && rounds <= 1000 && mib >= 1 && mib <= 256 && depth >= 1 &&
              depth <= 1024 && trips >= 0 && trips <= 1'000'000;
  for (const std::string& transport : absl::GetFlag(FLAGS_transports)) {
    good = good && (transport == "tcp" || transport == "unix");
  }
  for (const std::string& side : absl::GetFlag(FLAGS_sides)) {
    good = good && (side == "sync" || side == "callback" || side == "kept" || side == "tidepool" || side == "redis");
  }
  for (const std::string& kib : absl::GetFlag(FLAGS_kib)) {
    int value = 0;
    good = good && absl::SimpleAtoi(kib, &value) && value >= kKibOfHead && value <= 4096 && value % kKibOfHead == 0;
  }
  return good;
}

int Main(int argc, char** argv) {
  KeepFreedMemory();  // as tidepool-worker
  SkipMutexChecks();
  const auto rest = ParseFlags(argc, argv);
  if (!rest.ok() || !rest->empty() || !FlagsAreGood()) {
    std::fprintf(stderr, "%s\n%s", rest.ok() ? "cache_speed: a flag is out of range" : rest.status().ToString().c_str(),
                 FlagHelp({"cache_speed"}).c_str());
    return 2;
  }
  nlohmann::json json;
  std::printf("%-14s %s  %-20s %-17s  %-11s   ratios of the same rounds\n", "", "   ", "side", "GB/s (range)",
              "CPU ms/MB");
  for (const std::string& transport : absl::GetFlag(FLAGS_transports)) {
    for (const std::string& kib : absl::GetFlag(FLAGS_kib)) MeasureCell(transport, std::stoi(kib), &json);
  }
  if (const int trips = absl::GetFlag(FLAGS_round_trips); trips > 0) {
    for (const std::string& transport : absl::GetFlag(FLAGS_transports)) {
      json[transport]["round_trips"] = MeasureRoundTrips(transport == "unix", trips);
    }
  }
  if (const std::string file = absl::GetFlag(FLAGS_json); !file.empty()) std::ofstream(file) << json.dump(1) << "\n";
  return 0;
}

}  // namespace
}  // namespace tidepool::bench

int main(int argc, char** argv) { return tidepool::bench::Main(argc, argv); }
