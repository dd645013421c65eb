// A cache service and a worker as real processes on loopback, and blocking calls to them.
#ifndef TIDEPOOL_TESTS_E2E_CLUSTER_H_
#define TIDEPOOL_TESTS_E2E_CLUSTER_H_

#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/process.h"
#include "tests/support/temp_dir.h"
#include "tidepool/v1/cache_admin.grpc.pb.h"
#include "tidepool/v1/generation.grpc.pb.h"

namespace tidepool::test {

struct Reply {
  grpc::Status status;
  std::string text;
  std::vector<int32_t> ids;
  std::vector<float> logprobs;
  v1::Finished finished;
};

class Cluster {
 public:
  struct Options {
    std::string model;
    std::string cache_memory = "64MiB";
    std::vector<std::string> worker_flags;
  };
  explicit Cluster(Options options);

  void StartCache();  // on the port it had before
  void StartWorker();
  ChildProcess& cache() { return *cache_; }
  ChildProcess& worker() { return *worker_; }
  void KillCache();   // SIGKILL
  void KillWorker();  // SIGKILL
  const std::string& worker_address() const { return worker_address_; }
  const std::string& cache_address() const { return cache_address_; }

  // Runs a request to its end. `on_event` sees each response and may return false to cancel.
  Reply Generate(const v1::GenerateRequest& request,
                 const std::function<bool(const v1::GenerateResponse&)>& on_event = nullptr);
  v1::GetWorkerStatsResponse WorkerStats();
  v1::GetStatsResponse CacheStats();

 private:
  Options options_;
  TempDir dir_;
  int cache_port_ = 0;
  std::string cache_address_, worker_address_;
  std::unique_ptr<ChildProcess> cache_, worker_;
  std::unique_ptr<v1::Generation::Stub> generation_;
  std::unique_ptr<v1::CacheAdmin::Stub> admin_;
};

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_E2E_CLUSTER_H_
