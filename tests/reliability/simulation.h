// One run of the cache service's storage in simulated time: real tiers, real manifests and a real RocksDB over a
// simulated disk (simulated_disk.h), and clients behind a simulated network that loses, delays, repeats and reorders
// their messages. Power fails, the process is killed or closed in order, also in the middle of a write; disks refuse,
// fill up, cut short. All of it follows from the seed: one thread runs events in the order of their simulated time.
//
// A model is kept beside it (storage_model.h) and every answer compared with what it allows (simulated_storage.h).
#ifndef TIDEPOOL_TESTS_RELIABILITY_SIMULATION_H_
#define TIDEPOOL_TESTS_RELIABILITY_SIMULATION_H_

#include <cstdint>
#include <string>

namespace tidepool::test {

struct SimulationCounts {
  uint64_t digest = 0;     // of the whole history: the same for the same seed
  int64_t operations = 0;  // executed by the service
  int64_t repeated = 0;    // of them, messages that had been executed before
  int64_t lost_messages = 0;
  int64_t power_losses = 0, kills = 0, orderly_restarts = 0;
  int64_t failed_writes = 0, failed_reads = 0;  // of the disk; writes: everything but reads
  int64_t blocks = 0, manifests = 0;            // compared
  int64_t expired = 0;                          // values that left the disk because nobody used them

  SimulationCounts& operator+=(const SimulationCounts& other);
  std::string ToString() const;
};

struct SimulationReport {
  std::string failure;  // what was not allowed, and the end of the history; empty: nothing
  SimulationCounts counts;
};

// `shown`: lines of the history's end in a failure.
SimulationReport Simulate(uint64_t seed, size_t shown);

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_RELIABILITY_SIMULATION_H_
