#include "bench/cache/round_trips.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/check.h"
#include "base/mutex.h"
#include "bench/cache/raw_client.h"
#include "bench/cache/server_process.h"
#include "bench/cache/tidepool_server.h"
#include "policies/kv/block_codec.h"

namespace tidepool::bench {
namespace {

constexpr int kKvHeads = 8;           // values of 256 KiB
constexpr int kBlocks = 64;           // that rows are recalled from
constexpr int kBulkItems = 32;        // 8 MiB put at a time by the load
constexpr uint64_t kMask = 0x1111;    // 4 rows of 512 bytes
constexpr uint32_t kAskedBytes = 48;  // what our request and answer take, nearly
constexpr uint32_t kAnswerBytes = 4 * 512 + 4 * 4 + 24;

using Clock = std::chrono::steady_clock;

nlohmann::json Report(const char* transport, const char* what, const char* load, std::vector<double> micros) {
  std::sort(micros.begin(), micros.end());
  const double p50 = micros[micros.size() / 2], p99 = micros[micros.size() * 99 / 100];
  std::printf("%-5s %-22s %-14s p50 %6.0f us, p99 %6.0f us\n", transport, what, load, p50, p99);
  std::fflush(stdout);
  return {{"p50_us", p50}, {"p99_us", p99}};
}

std::vector<double> TimeEach(int count, const std::function<void(int)>& trip) {
  std::vector<double> micros;
  for (int i = 0; i < count; ++i) {
    const Clock::time_point start = Clock::now();
    trip(i);
    micros.push_back(std::chrono::duration<double, std::micro>(Clock::now() - start).count());
  }
  return micros;
}

// Runs `once` again and again on a thread of its own until it goes.
class Load {
 public:
  explicit Load(std::function<void(int)> once)
      : thread_([this, once = std::move(once)] {
          for (int turn = 0; !stop_; ++turn) once(turn);
        }) {}
  ~Load() {
    stop_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

void RecallOne(RemoteCache* cache, const Item& item) {
  Mutex mutex;
  CondVar changed;
  bool done = false;
  RecalledRows rows;
  cache->Recall({{.block = item.id, .kv_head = 3, .row_mask = kMask}}, absl::InfiniteFuture(),
                [&](absl::StatusOr<RecalledRows> recalled) {
                  TIDEPOOL_CHECK(recalled.ok());
                  MutexLock lock(&mutex);
                  rows = *std::move(recalled);
                  done = true;
                  changed.SignalAll();
                });
  {
    MutexLock lock(&mutex);
    while (!done) changed.Wait(&mutex);
  }
  const BlockView view = *BlockView::Parse(*item.value);
  std::string expected;
  for (uint64_t left = kMask; left != 0; left &= left - 1) expected += view.Row(3, std::countr_zero(left));
  TIDEPOOL_CHECK(rows.rows == expected);
}

}  // namespace

nlohmann::json MeasureRoundTrips(bool unix_socket, int count) {
  const char* transport = unix_socket ? "unix" : "tcp";
  nlohmann::json json;
  {
    ServerProcess server({"raw_server", "{listen}"}, unix_socket);
    for (const bool callback : {false, true}) {
      const auto echo = RawStream::Open(server.address(), RawMethod::kEcho, callback, 1);
      std::string message(kAskedBytes, '\0');
      std::memcpy(message.data(), &kAnswerBytes, sizeof kAnswerBytes);
      const auto ping = [&](int) { echo->Exchange({Borrowed(message.data(), message.size())}, 1); };
      TimeEach(count / 10, ping);
      const char* name = callback ? "raw ping, callback" : "raw ping, sync";
      json[name]["alone"] = Report(transport, name, "alone", TimeEach(count, ping));
      const auto sink = RawStream::Open(server.address(), RawMethod::kSink, callback, 2);
      std::vector<grpc::ByteBuffer> bulk;
      for (const Item& item : MakeItems(kKvHeads, kBulkItems, 0)) {
        bulk.push_back(Borrowed(item.value->data(), item.value->size()));
      }
      const Load load([&](int) { sink->Exchange(bulk, bulk.size()); });
      json[name]["loaded"] = Report(transport, name, "beside bulk", TimeEach(count, ping));
    }
  }
  const std::vector<Item> items = MakeItems(kKvHeads, kBlocks, 0);
  const TidepoolServer server(kKvHeads, size_t{1} << 30, unix_socket);
  const std::unique_ptr<RemoteCache> cache = server.Connect();
  OffloadAll(cache.get(), items, CopiesOf(items));
  const auto recall = [&](int i) { RecallOne(cache.get(), items[static_cast<size_t>(i % kBlocks)]); };
  TimeEach(count / 10, recall);
  json["recall"]["alone"] = Report(transport, "recall of 4 rows", "alone", TimeEach(count, recall));
  // The same blocks again: verified and answered like new ones, and memory does not grow with the time it takes.
  const Load load([&](int turn) {
    const std::vector<Item> bulk = MakeItems(kKvHeads, kBulkItems, turn % 8);
    OffloadAll(cache.get(), bulk, CopiesOf(bulk));
  });
  json["recall"]["loaded"] = Report(transport, "recall of 4 rows", "beside bulk", TimeEach(count, recall));
  return json;
}

}  // namespace tidepool::bench
