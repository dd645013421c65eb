// Cache services on loopback that can be stopped and started again on their data and port, and a client of them all.
#ifndef TIDEPOOL_TESTS_CACHESERVICE_SHARDS_PODS_H_
#define TIDEPOOL_TESTS_CACHESERVICE_SHARDS_PODS_H_

#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cacheservice/rpc/cache_server.h"
#include "cacheservice/shards/sharded_cache.h"
#include "tests/support/blocks.h"
#include "tests/support/eventually.h"
#include "tests/support/temp_dir.h"

namespace tidepool::test {

inline absl::Time Soon() { return absl::Now() + absl::Seconds(60); }

class Pods {
 public:
  explicit Pods(int count) : pods_(count) {
    for (int pod = 0; pod < count; ++pod) Start(pod);
  }

  // Of the pods that are started from now on.
  void set_peers(std::string peers) { peers_ = std::move(peers); }
  void Start(int pod) {
    CacheServerOptions options;
    options.listen = absl::StrCat("127.0.0.1:", pods_[pod].port);
    options.pod_name = absl::StrCat("pod-", pod);
    options.cache.data_dir = pods_[pod].dir.path();
    options.cache.memory_bytes = 1 << 20;
    if (!peers_.empty()) options.peers = *ParsePodList("--peers", peers_);
    auto server = CacheServer::Start(options);
    ASSERT_TRUE(server.ok()) << server.status();
    pods_[pod].server = *std::move(server);
    pods_[pod].port = pods_[pod].server->port();
  }
  // Connections break at once.
  void Stop(int pod) {
    pods_[pod].server->Shutdown(absl::ZeroDuration());
    pods_[pod].server.reset();
  }
  std::string address(int pod) const { return absl::StrCat("127.0.0.1:", pods_[pod].port); }
  std::vector<std::string> addresses() const {
    std::vector<std::string> all;
    for (size_t pod = 0; pod < pods_.size(); ++pod) all.push_back(address(static_cast<int>(pod)));
    return all;
  }

  // Probes often, so that tests need not wait.
  static ShardedCacheOptions Quick() {
    ShardedCacheOptions options;
    options.remote.layout = SmallLayout();
    options.timing.probe_interval = absl::Milliseconds(20);
    options.timing.slow_start = absl::ZeroDuration();
    return options;
  }
  // Every pod has answered, or cannot.
  std::unique_ptr<ShardedCache> Connect(ShardedCacheOptions options = Quick()) const {
    if (!options.resolve) options.pods.addresses = addresses();
    auto cache = ShardedCache::Connect(std::move(options));
    EXPECT_TRUE(cache.ok()) << cache.status();
    (*cache)->WaitForPods(Soon());
    return *std::move(cache);
  }
  std::unique_ptr<RemoteCache> ConnectOne(int pod) const {
    RemoteCacheOptions options;
    options.endpoint = address(pod);
    options.layout = SmallLayout();
    return *RemoteCache::Connect(options);
  }

 private:
  struct One {
    TempDir dir;
    int port = 0;
    std::unique_ptr<CacheServer> server;
  };
  std::string peers_;
  std::vector<One> pods_;
};

inline CachePodStats PodStats(const ShardedCache& cache, int pod) {
  for (const CachePodStats& stats : cache.Stats().pods) {
    if (stats.name == absl::StrCat("pod-", pod)) return stats;
  }
  return {};
}

inline void WaitForState(const ShardedCache& cache, int pod, CachePodStats::State state) {
  ASSERT_TRUE(Eventually([&] { return PodStats(cache, pod).state == state; }));
}

inline std::future<absl::Status> Offload(BlockCache& cache, int number, int layer, bool durable = false) {
  auto promise = std::make_shared<std::promise<absl::Status>>();
  cache.Offload({NumberedKey(number), layer}, NumberedValue(number, layer), {durable},
                [promise](absl::Status status) { promise->set_value(std::move(status)); });
  return promise->get_future();
}

// Blocks `first` to `last` - 1 in all layers, acknowledged.
inline void OffloadAll(BlockCache& cache, int first, int last, bool durable = false) {
  std::vector<std::future<absl::Status>> done;
  for (int number = first; number < last; ++number) {
    for (int layer = 0; layer < SmallLayout().layers; ++layer) done.push_back(Offload(cache, number, layer, durable));
  }
  for (std::future<absl::Status>& status : done) {
    const absl::Status stored = status.get();
    EXPECT_TRUE(stored.ok()) << stored;
  }
}

inline std::vector<BlockKey> Chain(int last) {
  std::vector<BlockKey> chain;
  for (int number = 0; number < last; ++number) chain.push_back(NumberedKey(number));
  return chain;
}

inline absl::StatusOr<RecalledRows> Recall(BlockCache& cache, std::vector<RowSelection> selections,
                                           absl::Time deadline = Soon()) {
  std::promise<absl::StatusOr<RecalledRows>> promise;
  cache.Recall(std::move(selections), deadline,
               [&](absl::StatusOr<RecalledRows> rows) { promise.set_value(std::move(rows)); });
  return promise.get_future().get();
}

inline SessionManifest Manifest(const std::string& session, int64_t revision) {
  SessionManifest manifest;
  manifest.tenant = "default";
  manifest.session_id = session;
  manifest.model_fingerprint = "test-model";
  manifest.revision = revision;
  manifest.engine_state = absl::StrCat(session, " in turn ", revision);
  return manifest;
}

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_CACHESERVICE_SHARDS_PODS_H_
