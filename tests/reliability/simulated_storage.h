// The service side of a simulation: real tiers, manifests and RocksDB over a simulated disk, and the model that says
// what each answer may be. Not thread-safe, but for what it starts itself.
#ifndef TIDEPOOL_TESTS_RELIABILITY_SIMULATED_STORAGE_H_
#define TIDEPOOL_TESTS_RELIABILITY_SIMULATED_STORAGE_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cacheservice/manifests/manifest_store_disk.h"
#include "cacheservice/rocksdb/database.h"
#include "cacheservice/tiers/tiered_store.h"
#include "tests/reliability/simulated_disk.h"
#include "tests/reliability/simulated_env.h"
#include "tests/reliability/simulation.h"
#include "tests/reliability/storage_model.h"
#include "tests/support/temp_dir.h"

namespace tidepool::test {

// A client's question.
struct Message {
  enum class Kind : uint8_t {
    kPut,
    kGet,
    kGather,
    kLookup,
    kPutManifest,
    kCopyManifest,
    kGetManifest,
    kDelete,
    kLease
  };
  uint64_t id = 0;
  int client = 0;
  Kind kind = Kind::kGet;
  int number = 0;  // of the block
  bool durable = false;
  int kv_head = 0;
  uint64_t row_mask = 0;
  std::vector<int> chain;
  SessionManifest manifest;
  std::string session;
  bool release = false;  // a lease of before ends
  int executed = 0;      // times
};

// What has happened, and the first thing of it that was not allowed.
class History {
 public:
  // `shown`: last lines of a failure.
  History(uint64_t seed, const int64_t* now_ms, size_t shown) : seed_(seed), now_ms_(now_ms), shown_(shown) {}
  void Note(const std::string& line);
  void Violation(const std::string& what);
  bool Expect(bool holds, const std::string& what) {
    if (!holds) Violation(what);
    return holds;
  }
  bool failed() const { return !failure_.empty(); }
  const std::string& failure() const { return failure_; }
  uint64_t digest() const { return digest_; }

 private:
  const uint64_t seed_;
  const int64_t* const now_ms_;
  const size_t shown_;
  std::deque<std::string> lines_;
  std::string failure_;
  uint64_t digest_ = 0;
};

class SimulatedStorage {
 public:
  static constexpr int kBlocks = 60;  // twice what memory holds
  static constexpr int kSessions = 5;

  // The time is the simulation's; both outlive the storage. `seed` also says how the disk fails.
  SimulatedStorage(uint64_t seed, const int64_t* now_ms, History* history);
  ~SimulatedStorage() { Stop(); }

  bool running() const { return manifests_ != nullptr; }
  bool powered() const { return disk_->powered(); }
  void set_full(bool full) { disk_->set_full(full); }
  // False: the disk failed while it started. After some attempts it does not.
  bool Start();
  enum class End : uint8_t { kPowerLoss, kKill, kOrderly };
  void Restart(End end);  // leaves it stopped
  // Runs a call to its end, with all that it brings about in the background, and compares what comes of it.
  void Execute(Message* message);
  // With a disk that works from now on: everything is as it must be.
  void Heal();
  void CheckAll();
  // How long blocks stay on disk that nobody uses; 0: until there is no room. Of every fifth seed.
  int64_t ttl_ms() const { return ttl_ms_; }
  // Calls of the disk fail now and then.
  bool disk_fails() const { return disk_faults_.read_error > 0 || disk_faults_.sync_error > 0; }
  // Takes from the disk what is due by now.
  void Expire();
  // Nobody has used anything for more than that.
  void CheckAllExpire();

  // What a client is told of a session.
  const std::optional<SessionManifest>& sure(const std::string& session) { return sessions_.sure(session); }
  // What was compared, and how the disk failed.
  void Count(SimulationCounts* counts) const;

 private:
  absl::Status Open();
  void Stop();
  void Settle();
  void Put(const Message& message);
  void Get(const Message& message);
  void Gather(const Message& message);
  void Lookup(const Message& message);
  void Lease(const Message& message);
  void PutManifest(const Message& message);
  void GetManifest(const std::string& session);
  void Delete(const Message& message);
  void DrainToDisk();
  void CheckLimits();
  bool Expect(bool holds, const std::string& what) { return history_->Expect(holds, what); }
  // A status that only a failing disk explains.
  void ExpectOkUnlessDiskFailed(const absl::Status& status, const std::string& what);
  void CallBegins();
  // Something of the present call, or of what it brought about, has failed on the disk; has not reached it.
  bool DiskFailed() const { return WriteFailed() || disk_->failures() != failures_before_; }
  bool WriteFailed() const;

  const int64_t* const now_ms_;
  History* const history_;
  const int64_t ttl_ms_;
  DiskFaults disk_faults_;
  TempDir dir_;
  const std::shared_ptr<SimulatedDisk> disk_;
  SimulatedEnv env_;
  std::unique_ptr<Database> database_;
  std::unique_ptr<TieredStore> store_;
  std::unique_ptr<DiskManifestStore> manifests_;
  std::vector<std::pair<int, BlockLease>> leases_;  // by number
  int open_attempts_ = 0;
  uint64_t failures_before_ = 0;  // of the disk, when the present call began
  uint64_t failed_reads_before_ = 0;
  CacheStats stats_;            // when everything had last settled
  bool failed_behind_ = false;  // a job in the background has failed, and the first write after it is to be told
  uint64_t lost_before_ = 0;    // on their way from memory to disk
  bool writable_before_ = true;
  BlockModel blocks_{kBlocks, ttl_ms_};
  ManifestModel sessions_;
  int64_t checked_blocks_ = 0, checked_manifests_ = 0, expired_ = 0;
};

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_RELIABILITY_SIMULATED_STORAGE_H_
