// What can happen to the pods, the workers and the remote tier of the scenario.
#ifndef TIDEPOOL_TESTS_CHAOS_FAULT_KINDS_H_
#define TIDEPOOL_TESTS_CHAOS_FAULT_KINDS_H_

#include <memory>
#include <string>
#include <vector>

#include "tests/cacheservice/resp/redis_servers.h"
#include "tests/chaos/fault_track.h"
#include "tests/chaos/tally.h"
#include "tests/chaos/worker_lives.h"
#include "tests/e2e/fleet.h"

namespace tidepool::test {

// A directory for each pod, on a small file system of its own where this machine lets us mount one.
class SmallDisks {
 public:
  // `parent` exists and lives longer.
  SmallDisks(const std::string& parent, int count, int megabytes);
  ~SmallDisks();
  SmallDisks(const SmallDisks&) = delete;
  SmallDisks& operator=(const SmallDisks&) = delete;

  const std::vector<std::string>& dirs() const { return dirs_; }
  // Empty, or why there are only directories.
  const std::string& refused() const { return refused_; }
  // Takes all the room there is, and gives it back.
  void Fill(int disk) const;
  void Free(int disk) const;

 private:
  std::vector<std::string> mounts_, dirs_;
  std::string refused_;
};

std::vector<Fault> PodFaults(Fleet& fleet, const SmallDisks& disks, Tally& tally);
std::vector<Fault> WorkerFaults(Fleet& fleet, WorkerLives& lives);
std::vector<Fault> RedisFaults(RedisCluster& redis);

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_CHAOS_FAULT_KINDS_H_
