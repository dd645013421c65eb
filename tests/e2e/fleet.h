// Cache pods and workers as real processes that are killed, cut off and brought back. With `proxies` a FaultProxy lies
// between each worker and each pod; pods reach each other directly. Ports stay the same over restarts. Everything is
// started by the thread that makes the fleet, which must outlive it; counters may be asked from any thread.
#ifndef TIDEPOOL_TESTS_E2E_FLEET_H_
#define TIDEPOOL_TESTS_E2E_FLEET_H_

#include <memory>
#include <string>
#include <vector>

#include "tests/support/fault_proxy.h"
#include "tests/support/process.h"
#include "tests/support/temp_dir.h"
#include "tidepool/v1/cache_admin.grpc.pb.h"
#include "tidepool/v1/generation.grpc.pb.h"

namespace tidepool::test {

class Fleet {
 public:
  struct Options {
    std::string model;
    int pods = 3, workers = 1;
    std::vector<std::string> pod_flags = {"--memory-bytes=16MiB"}, worker_flags;
    bool proxies = false;
    // Of each pod; empty: folders that are removed with the fleet.
    std::vector<std::string> data_dirs;
    // Each pod runs in this network namespace and listens on this address; empty: in ours, on 127.0.0.1.
    std::vector<std::string> namespaces, hosts;
  };
  explicit Fleet(Options options);

  int pods() const { return options_.pods; }
  int workers() const { return options_.workers; }

  void StartPod(int pod);  // again, on its port and its data
  ChildProcess& pod(int pod) { return *pods_[static_cast<size_t>(pod)].process; }
  std::string pod_address(int pod) const;  // of itself
  std::string pod_addresses() const;       // of all
  FaultProxy& proxy(int worker, int pod);  // of `proxies`
  v1::GetStatsResponse PodStats(int pod);  // throws when it does not answer
  // Turns of the default tenant's session that are stored, by the pods that answer; 0: none has it.
  int64_t Revision(const std::string& session);

  void StartWorker(int worker);  // again, on its port
  ChildProcess& worker(int worker) { return *workers_[static_cast<size_t>(worker)].process; }
  std::string worker_address(int worker) const;
  v1::Generation::Stub& generation(int worker) { return *workers_[static_cast<size_t>(worker)].generation; }
  v1::GetWorkerStatsResponse WorkerStats(int worker);  // throws when it does not answer
  // The pod as the worker sees it.
  v1::CachePodStats::State StateOf(int worker, int pod);
  // The worker can use all pods. Throws when it does not answer.
  bool AllUp(int worker);
  // Likewise; false when it does not answer.
  bool SeesAll(int worker);

 private:
  struct Pod {
    int port = 0;
    std::unique_ptr<ChildProcess> process;
    std::unique_ptr<v1::CacheAdmin::Stub> admin;
  };
  struct Worker {
    int port = 0;
    std::vector<std::unique_ptr<FaultProxy>> proxies;
    std::unique_ptr<ChildProcess> process;
    std::unique_ptr<v1::Generation::Stub> generation;
  };
  void StartPod(int pod, const std::string& peers);
  std::string host(int pod) const;

  const Options options_;
  TempDir dir_;
  std::vector<Pod> pods_;
  std::vector<Worker> workers_;
};

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_E2E_FLEET_H_
