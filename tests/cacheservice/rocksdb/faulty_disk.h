// A disk that fails, or is slow, on demand, below RocksDB: everything else goes to the real file system.
#ifndef TIDEPOOL_TESTS_CACHESERVICE_ROCKSDB_FAULTY_DISK_H_
#define TIDEPOOL_TESTS_CACHESERVICE_ROCKSDB_FAULTY_DISK_H_

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "base/mutex.h"
#include "rocksdb/env.h"
#include "rocksdb/file_system.h"

namespace tidepool::test {

class FaultyFileSystem : public rocksdb::FileSystemWrapper {
 public:
  // kNoBlocks: new files are made, and none takes a byte. kNoSync: all is written, and nothing can be synced.
  enum class Writes : uint8_t { kWork, kDiskFull, kNoBlocks, kReadOnly, kNoSync };

  FaultyFileSystem() : FileSystemWrapper(rocksdb::FileSystem::Default()) {}
  const char* Name() const override { return "FaultyFileSystem"; }

  void set_writes(Writes writes) { writes_ = writes; }
  void set_reads_fail(bool fail) { reads_fail_ = fail; }
  // The read after so many others fails, and none after it; negative: none does.
  void FailReadAfter(int reads) { reads_left_ = reads; }
  bool read_has_failed() const { return reads_left_ < 0; }
  // What each read takes longer. Those under way end when there is none any more.
  void set_read_delay(std::chrono::milliseconds delay) {
    MutexLock lock(&mutex_);
    read_delay_ = delay;
    changed_.SignalAll();
  }
  // Attempts to write that were refused.
  int refused_writes() const { return refused_writes_; }

  rocksdb::IOStatus NewWritableFile(const std::string& name, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* context) override {
    if (writes_ != Writes::kNoBlocks) {
      if (const rocksdb::IOStatus refused = RefuseWrite(); !refused.ok()) return refused;
    }
    std::unique_ptr<rocksdb::FSWritableFile> real;
    const rocksdb::IOStatus status = target()->NewWritableFile(name, options, &real, context);
    if (status.ok()) *file = std::make_unique<WritableFile>(this, std::move(real));
    return status;
  }
  rocksdb::IOStatus NewRandomAccessFile(const std::string& name, const rocksdb::FileOptions& options,
                                        std::unique_ptr<rocksdb::FSRandomAccessFile>* file,
                                        rocksdb::IODebugContext* context) override {
    std::unique_ptr<rocksdb::FSRandomAccessFile> real;
    const rocksdb::IOStatus status = target()->NewRandomAccessFile(name, options, &real, context);
    if (status.ok()) *file = std::make_unique<ReadableFile>(this, std::move(real));
    return status;
  }

 private:
  class WritableFile : public rocksdb::FSWritableFileOwnerWrapper {
   public:
    WritableFile(FaultyFileSystem* disk, std::unique_ptr<rocksdb::FSWritableFile> file)
        : FSWritableFileOwnerWrapper(std::move(file)), disk_(disk) {}
    rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                             rocksdb::IODebugContext* context) override {
      const rocksdb::IOStatus refused = disk_->RefuseWrite();
      return refused.ok() ? FSWritableFileOwnerWrapper::Append(data, options, context) : refused;
    }
    rocksdb::IOStatus Append(const rocksdb::Slice& data, const rocksdb::IOOptions& options,
                             const rocksdb::DataVerificationInfo& info, rocksdb::IODebugContext* context) override {
      const rocksdb::IOStatus refused = disk_->RefuseWrite();
      return refused.ok() ? FSWritableFileOwnerWrapper::Append(data, options, info, context) : refused;
    }
    rocksdb::IOStatus Sync(const rocksdb::IOOptions& options, rocksdb::IODebugContext* context) override {
      if (disk_->writes_ == Writes::kNoSync) return rocksdb::IOStatus::IOError("injected", "Input/output error");
      return FSWritableFileOwnerWrapper::Sync(options, context);
    }

   private:
    FaultyFileSystem* const disk_;
  };
  class ReadableFile : public rocksdb::FSRandomAccessFileOwnerWrapper {
   public:
    ReadableFile(FaultyFileSystem* disk, std::unique_ptr<rocksdb::FSRandomAccessFile> file)
        : FSRandomAccessFileOwnerWrapper(std::move(file)), disk_(disk) {}
    rocksdb::IOStatus Read(uint64_t offset, size_t n, const rocksdb::IOOptions& options, rocksdb::Slice* result,
                           char* scratch, rocksdb::IODebugContext* context) const override {
      if (disk_->ReadFails()) return rocksdb::IOStatus::IOError("injected", "Input/output error");
      disk_->DelayRead();
      return FSRandomAccessFileOwnerWrapper::Read(offset, n, options, result, scratch, context);
    }
    rocksdb::IOStatus MultiRead(rocksdb::FSReadRequest* requests, size_t count, const rocksdb::IOOptions& options,
                                rocksdb::IODebugContext* context) override {
      disk_->DelayRead();
      if (!disk_->ReadFails()) return FSRandomAccessFileOwnerWrapper::MultiRead(requests, count, options, context);
      for (size_t i = 0; i < count; ++i) {
        requests[i].status = rocksdb::IOStatus::IOError("injected", "Input/output error");
      }
      return rocksdb::IOStatus::OK();
    }

   private:
    FaultyFileSystem* const disk_;
  };

  bool ReadFails() { return reads_fail_ || (reads_left_ >= 0 && reads_left_-- == 0); }
  void DelayRead() {
    MutexLock lock(&mutex_);
    const auto until = std::chrono::steady_clock::now() + read_delay_;
    while (read_delay_ > read_delay_.zero() && changed_.WaitUntil(&mutex_, until)) {
    }
  }

  rocksdb::IOStatus RefuseWrite() {
    switch (writes_.load()) {
      case Writes::kWork:
      case Writes::kNoSync: return rocksdb::IOStatus::OK();
      case Writes::kDiskFull:
      case Writes::kNoBlocks:
        ++refused_writes_;
        return rocksdb::IOStatus::NoSpace("injected", "No space left on device");
      case Writes::kReadOnly: ++refused_writes_; return rocksdb::IOStatus::IOError("injected", "Read-only file system");
    }
    return rocksdb::IOStatus::OK();
  }

  std::atomic<Writes> writes_{Writes::kWork};
  std::atomic<bool> reads_fail_{false};
  std::atomic<int> reads_left_{-1};
  Mutex mutex_;
  CondVar changed_;
  std::chrono::milliseconds read_delay_ ABSL_GUARDED_BY(mutex_){0};
  std::atomic<int> refused_writes_{0};
};

// DatabaseOptions.env over such a disk. Outlives the database.
class FaultyDisk {
 public:
  FaultyFileSystem& operator*() const { return *files_; }
  FaultyFileSystem* operator->() const { return files_.get(); }
  rocksdb::Env* env() const { return env_.get(); }

 private:
  const std::shared_ptr<FaultyFileSystem> files_ = std::make_shared<FaultyFileSystem>();
  const std::unique_ptr<rocksdb::Env> env_ = rocksdb::NewCompositeEnv(files_);
};

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_CACHESERVICE_ROCKSDB_FAULTY_DISK_H_
