#include "cacheservice/rocksdb/resumable_files.h"

#include <string>
#include <utility>

#include "rocksdb/env.h"
#include "rocksdb/file_system.h"

namespace tidepool {
namespace {

using rocksdb::DataVerificationInfo;
using rocksdb::DirFsyncOptions;
using rocksdb::FileOptions;
using rocksdb::FSDirectory;
using rocksdb::FSRandomAccessFile;
using rocksdb::FSReadRequest;
using rocksdb::FSWritableFile;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

// The subcode (no space) goes, because RocksDB would begin its own recovery for it; the text still says it.
IOStatus Retryable(IOStatus status) {
  if (!status.IsIOError() || status.GetDataLoss()) return status;
  IOStatus marked = IOStatus::IOError(status.getState() != nullptr ? status.getState() : status.ToString());
  marked.SetRetryable(true);
  return marked;
}

class ResumableFile final : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  using Base = FSWritableFileOwnerWrapper;
  explicit ResumableFile(std::unique_ptr<FSWritableFile> file) : Base(std::move(file)) {}

  IOStatus Append(const Slice& data, const IOOptions& options, IODebugContext* context) override {
    return Retryable(Base::Append(data, options, context));
  }
  IOStatus Append(const Slice& data, const IOOptions& options, const DataVerificationInfo& info,
                  IODebugContext* context) override {
    return Retryable(Base::Append(data, options, info, context));
  }
  IOStatus PositionedAppend(const Slice& data, uint64_t offset, const IOOptions& options,
                            IODebugContext* context) override {
    return Retryable(Base::PositionedAppend(data, offset, options, context));
  }
  IOStatus PositionedAppend(const Slice& data, uint64_t offset, const IOOptions& options,
                            const DataVerificationInfo& info, IODebugContext* context) override {
    return Retryable(Base::PositionedAppend(data, offset, options, info, context));
  }
  IOStatus Truncate(uint64_t size, const IOOptions& options, IODebugContext* context) override {
    return Retryable(Base::Truncate(size, options, context));
  }
  IOStatus Close(const IOOptions& options, IODebugContext* context) override {
    return Retryable(Base::Close(options, context));
  }
  IOStatus Flush(const IOOptions& options, IODebugContext* context) override {
    return Retryable(Base::Flush(options, context));
  }
  IOStatus Sync(const IOOptions& options, IODebugContext* context) override {
    return Retryable(Base::Sync(options, context));
  }
  IOStatus Fsync(const IOOptions& options, IODebugContext* context) override {
    return Retryable(Base::Fsync(options, context));
  }
  IOStatus RangeSync(uint64_t offset, uint64_t bytes, const IOOptions& options, IODebugContext* context) override {
    return Retryable(Base::RangeSync(offset, bytes, options, context));
  }
};

class CountedFile final : public rocksdb::FSRandomAccessFileOwnerWrapper {
 public:
  using Base = FSRandomAccessFileOwnerWrapper;
  CountedFile(std::unique_ptr<FSRandomAccessFile> file, std::atomic<uint64_t>* failed_reads)
      : Base(std::move(file)), failed_reads_(failed_reads) {}

  IOStatus Read(uint64_t offset, size_t bytes, const IOOptions& options, Slice* result, char* scratch,
                IODebugContext* context) const override {
    IOStatus status = Base::Read(offset, bytes, options, result, scratch, context);
    if (!status.ok()) ++*failed_reads_;
    return status;
  }
  IOStatus MultiRead(FSReadRequest* requests, size_t count, const IOOptions& options,
                     IODebugContext* context) override {
    IOStatus status = Base::MultiRead(requests, count, options, context);
    bool failed = !status.ok();
    for (size_t i = 0; i < count; ++i) failed = failed || !requests[i].status.ok();
    if (failed) ++*failed_reads_;
    return status;
  }

 private:
  std::atomic<uint64_t>* const failed_reads_;
};

class ResumableDirectory final : public rocksdb::FSDirectoryWrapper {
 public:
  using Base = FSDirectoryWrapper;
  explicit ResumableDirectory(std::unique_ptr<FSDirectory> directory) : Base(std::move(directory)) {}

  IOStatus Fsync(const IOOptions& options, IODebugContext* context) override {
    return Retryable(Base::Fsync(options, context));
  }
  IOStatus FsyncWithDirOptions(const IOOptions& options, IODebugContext* context,
                               const DirFsyncOptions& sync) override {
    return Retryable(Base::FsyncWithDirOptions(options, context, sync));
  }
};

class ResumableFiles final : public rocksdb::FileSystemWrapper {
 public:
  ResumableFiles(const std::shared_ptr<FileSystem>& base, std::atomic<uint64_t>* failed_reads)
      : FileSystemWrapper(base), failed_reads_(failed_reads) {}
  const char* Name() const override { return "TidepoolResumableFiles"; }

  IOStatus NewRandomAccessFile(const std::string& name, const FileOptions& options,
                               std::unique_ptr<FSRandomAccessFile>* file, IODebugContext* context) override {
    IOStatus status = target()->NewRandomAccessFile(name, options, file, context);
    if (status.ok()) {
      *file = std::make_unique<CountedFile>(std::move(*file), failed_reads_);
    } else {
      ++*failed_reads_;
    }
    return status;
  }
  IOStatus NewWritableFile(const std::string& name, const FileOptions& options, std::unique_ptr<FSWritableFile>* file,
                           IODebugContext* context) override {
    return Wrapped(target()->NewWritableFile(name, options, file, context), file);
  }
  IOStatus ReopenWritableFile(const std::string& name, const FileOptions& options,
                              std::unique_ptr<FSWritableFile>* file, IODebugContext* context) override {
    return Wrapped(target()->ReopenWritableFile(name, options, file, context), file);
  }
  IOStatus ReuseWritableFile(const std::string& name, const std::string& old_name, const FileOptions& options,
                             std::unique_ptr<FSWritableFile>* file, IODebugContext* context) override {
    return Wrapped(target()->ReuseWritableFile(name, old_name, options, file, context), file);
  }
  IOStatus NewDirectory(const std::string& name, const IOOptions& options, std::unique_ptr<FSDirectory>* directory,
                        IODebugContext* context) override {
    IOStatus status = target()->NewDirectory(name, options, directory, context);
    if (status.ok()) *directory = std::make_unique<ResumableDirectory>(std::move(*directory));
    return Retryable(std::move(status));
  }
  IOStatus RenameFile(const std::string& from, const std::string& to, const IOOptions& options,
                      IODebugContext* context) override {
    return Retryable(target()->RenameFile(from, to, options, context));
  }

 private:
  static IOStatus Wrapped(IOStatus status, std::unique_ptr<FSWritableFile>* file) {
    if (status.ok()) *file = std::make_unique<ResumableFile>(std::move(*file));
    return Retryable(std::move(status));
  }

  std::atomic<uint64_t>* const failed_reads_;
};

class ResumableEnv final : public rocksdb::EnvWrapper {
 public:
  ResumableEnv(rocksdb::Env* base, std::atomic<uint64_t>* failed_reads) : EnvWrapper(base) {
    file_system_ = std::make_shared<ResumableFiles>(base->GetFileSystem(), failed_reads);
  }
};

}  // namespace

std::unique_ptr<rocksdb::Env> MakeResumableEnv(rocksdb::Env* base, std::atomic<uint64_t>* failed_reads) {
  return std::make_unique<ResumableEnv>(base, failed_reads);
}

}  // namespace tidepool
