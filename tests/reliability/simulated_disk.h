// A disk below RocksDB that forgets what was not synced when its power fails, and that fails as disks do: a write that
// is refused, cut short or finds no space, a sync or a read that fails. Which call fails is a function of the seed, the
// file's name and how many calls the file has seen, so it does not depend on how threads interleave. The files are real
// ones, in a temporary directory.
//
// Power: from PowerOff on every call fails, so that what is above can be closed without a trace. PowerOn then leaves of
// each file what was synced and some of what was not, the end of a log perhaps as garbage, and of the creations and
// renames since their directory was synced the first few, as a file system with a journal does. Thread-safe.
#ifndef TIDEPOOL_TESTS_RELIABILITY_SIMULATED_DISK_H_
#define TIDEPOOL_TESTS_RELIABILITY_SIMULATED_DISK_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "rocksdb/file_system.h"

namespace tidepool::test {

// Chances of one call, in 1 / 1,000,000.
struct DiskFaults {
  int write_error = 0;
  int short_write = 0;  // half of it is written, then an error
  int sync_error = 0;
  int read_error = 0;
  int power_off = 0;  // at a write, which may be written or not
};

class SimulatedDisk final : public rocksdb::FileSystemWrapper {
 public:
  SimulatedDisk(uint64_t seed, const DiskFaults& faults);
  const char* Name() const override { return "SimulatedDisk"; }

  void set_faults(const DiskFaults& faults);
  void set_full(bool full) { full_ = full; }
  // Calls that failed, those for want of power or space included.
  uint64_t failures() const { return failures_; }
  uint64_t failed_reads() const { return failed_reads_; }
  bool powered() const { return powered_; }
  void PowerOff() { powered_ = false; }
  // `synced_only`: what was not synced may be gone; else, as after a SIGKILL, all that was written is there.
  void PowerOn(bool synced_only);

  rocksdb::IOStatus NewWritableFile(const std::string& name, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus ReopenWritableFile(const std::string& name, const rocksdb::FileOptions& options,
                                       std::unique_ptr<rocksdb::FSWritableFile>* file,
                                       rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus ReuseWritableFile(const std::string& name, const std::string& old_name,
                                      const rocksdb::FileOptions& options,
                                      std::unique_ptr<rocksdb::FSWritableFile>* file,
                                      rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus NewRandomAccessFile(const std::string& name, const rocksdb::FileOptions& options,
                                        std::unique_ptr<rocksdb::FSRandomAccessFile>* file,
                                        rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus NewSequentialFile(const std::string& name, const rocksdb::FileOptions& options,
                                      std::unique_ptr<rocksdb::FSSequentialFile>* file,
                                      rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus NewDirectory(const std::string& name, const rocksdb::IOOptions& options,
                                 std::unique_ptr<rocksdb::FSDirectory>* directory,
                                 rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus DeleteFile(const std::string& name, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* context) override;
  rocksdb::IOStatus RenameFile(const std::string& from, const std::string& to, const rocksdb::IOOptions& options,
                               rocksdb::IODebugContext* context) override;

 private:
  class WritableFile;
  class RandomAccessFile;
  class Directory;
  enum class Call : uint8_t { kWrite, kShortWrite, kSync, kRead, kPowerOff };

  struct File {
    uint64_t bytes = 0, synced_bytes = 0;
  };
  // Of a directory: a file was made, or took the name of another.
  struct Change {
    std::string name;
    std::optional<std::string> old_content;  // of what was there before
  };

  // Whether this call on the file is one that fails.
  bool Fails(Call call, const std::string& name) ABSL_LOCKS_EXCLUDED(mutex_);
  rocksdb::IOStatus Fail(const char* what);
  // What an append does: OK to go on, `part` of it.
  rocksdb::IOStatus BeforeWrite(const std::string& name, size_t size, size_t* part) ABSL_LOCKS_EXCLUDED(mutex_);
  void Wrote(const std::string& name, size_t size) ABSL_LOCKS_EXCLUDED(mutex_);
  rocksdb::IOStatus Sync(const std::string& name) ABSL_LOCKS_EXCLUDED(mutex_);
  rocksdb::IOStatus SyncDirectory(const std::string& name) ABSL_LOCKS_EXCLUDED(mutex_);
  void Create(const std::string& name) ABSL_LOCKS_EXCLUDED(mutex_);
  void ForgetEnd(const std::string& name, const File& file, uint64_t draw);

  const uint64_t seed_;
  std::atomic<bool> powered_{true}, full_{false};
  std::atomic<uint64_t> failures_{0}, failed_reads_{0};
  mutable Mutex mutex_;
  DiskFaults faults_ ABSL_GUARDED_BY(mutex_);
  std::mt19937_64 random_ ABSL_GUARDED_BY(mutex_);  // of PowerOn
  std::map<std::string, File> files_ ABSL_GUARDED_BY(mutex_);
  std::vector<Change> changes_ ABSL_GUARDED_BY(mutex_);  // of directories that were not synced since, in order
  std::map<std::string, uint64_t> calls_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_RELIABILITY_SIMULATED_DISK_H_
