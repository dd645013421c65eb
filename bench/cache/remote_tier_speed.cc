// Speed of the remote tier against one redis-server that it starts itself (package redis-tools), on loopback: values
// are stored and read in batches of 16, as recall does, and beside them the bare pipelined commands over the same
// connection code, which is the limit. Sides take turns; medians are printed.
//
//   remote_tier_speed [--rounds=7] [--mib=64]
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/flags.h"
#include "cacheservice/resp/connection.h"
#include "cacheservice/tiers/remote_tier.h"
#include "tests/cacheservice/resp/redis_servers.h"
#include "tests/cacheservice/tiers/wide_blocks.h"

ABSL_FLAG(int, rounds, 7, "turns of each side: 1 to 1000");
ABSL_FLAG(int, mib, 64, "MiB stored and read in a turn: 1 to 1024");

namespace tidepool {
namespace {

constexpr size_t kBatch = 16;

double SecondsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// GB/s by what was measured.
using Rates = std::map<std::string, std::vector<double>>;

void Exchange(RespConnection* connection, std::vector<RespCommand> commands) {
  connection->Start(std::move(commands));
  RespConnection::Exchange({&connection, 1}, absl::InfiniteFuture());
  TIDEPOOL_CHECK(connection->status().ok());
}

void BareRound(RespConnection* connection, const std::vector<DiskPut>& puts, double bytes, Rates* rates) {
  const std::string_view flush[] = {"FLUSHALL"};
  TIDEPOOL_CHECK(connection->Call(flush, absl::InfiniteFuture()).ok());
  for (const bool storing : {true, false}) {
    const auto start = std::chrono::steady_clock::now();
    for (size_t first = 0; first < puts.size(); first += kBatch) {
      std::vector<RespCommand> commands;
      for (size_t i = first; i < std::min(first + kBatch, puts.size()); ++i) {
        const std::string key = "bare" + std::to_string(i);
        const std::string_view set[] = {"SET", key, *puts[i].value}, get[] = {"GET", key};
        if (storing) {
          commands.emplace_back(set);
        } else {
          commands.emplace_back(get);
        }
      }
      Exchange(connection, std::move(commands));
    }
    (*rates)[storing ? "bare SET" : "bare GET"].push_back(bytes / 1e9 / SecondsSince(start));
  }
  for (size_t i = 0; i < connection->replies().size(); ++i) {
    TIDEPOOL_CHECK(connection->replies()[i].text == *puts[puts.size() - connection->replies().size() + i].value);
  }
}

void TierRound(const std::string& url, RespConnection* connection, const std::vector<DiskPut>& puts, double bytes,
               Rates* rates) {
  const std::string_view flush[] = {"FLUSHALL"};
  TIDEPOOL_CHECK(connection->Call(flush, absl::InfiniteFuture()).ok());
  RemoteTierOptions options;
  options.url = url;
  options.timeout = absl::Seconds(60);
  const auto tier = *RemoteTier::Open(options);
  auto start = std::chrono::steady_clock::now();
  for (size_t first = 0; first < puts.size(); first += kBatch) {
    for (const absl::Status& status : tier->Put(absl::MakeConstSpan(puts).subspan(first, kBatch))) {
      TIDEPOOL_CHECK(status.ok());
    }
  }
  (*rates)["tier put"].push_back(bytes / 1e9 / SecondsSince(start));
  start = std::chrono::steady_clock::now();
  std::vector<BlockValue> read;
  for (size_t first = 0; first < puts.size(); first += kBatch) {
    std::vector<BlockId> ids;
    for (size_t i = first; i < std::min(first + kBatch, puts.size()); ++i) ids.push_back(puts[i].id);
    read = tier->Get(ids, absl::InfiniteFuture()).values;
    for (const BlockValue& value : read) TIDEPOOL_CHECK(value != nullptr);
  }
  (*rates)["tier get"].push_back(bytes / 1e9 / SecondsSince(start));
  for (size_t i = 0; i < read.size(); ++i) TIDEPOOL_CHECK(*read[i] == *puts[puts.size() - read.size() + i].value);
}

int Main(int argc, char** argv) {
  const auto rest = ParseFlags(argc, argv);
  const int rounds = absl::GetFlag(FLAGS_rounds), mib = absl::GetFlag(FLAGS_mib);
  if (!rest.ok() || !rest->empty() || rounds < 1 || rounds > 1000 || mib < 1 || mib > 1024) {
    std::fprintf(stderr, "usage: remote_tier_speed [--rounds=1..1000] [--mib=1..1024]\n");
    return 2;
  }
  test::RedisServer server;
  const auto connection = *RespConnection::Connect(server.endpoint(), {}, absl::Now() + absl::Seconds(10));
  std::printf("%-12s %10s %10s %10s %10s   GB/s, medians of %d\n", "value", "bare SET", "tier put", "bare GET",
              "tier get", rounds);
  for (const int kv_heads : {2, 8, 32}) {  // 64 KiB, 256 KiB, 1 MiB and their headers
    std::vector<DiskPut> puts;
    double bytes = 0;
    while (bytes < mib * 1048576.0) {
      const int number = static_cast<int>(puts.size());
      puts.push_back({.id = test::WideId(number),
                      .value = std::make_shared<const std::string>(test::WideValue(number, kv_heads))});
      bytes += static_cast<double>(puts.back().value->size());
    }
    Rates rates;
    for (int round = 0; round < rounds; ++round) {
      BareRound(connection.get(), puts, bytes, &rates);
      TierRound(server.url(), connection.get(), puts, bytes, &rates);
    }
    std::printf("%8zu KiB", puts[0].value->size() / 1024);
    for (const char* what : {"bare SET", "tier put", "bare GET", "tier get"}) {
      std::vector<double>& all = rates[what];
      std::sort(all.begin(), all.end());
      std::printf(" %10.2f", all[all.size() / 2]);
    }
    std::printf("\n");
  }
  return 0;
}

}  // namespace
}  // namespace tidepool

int main(int argc, char** argv) { return tidepool::Main(argc, argv); }
