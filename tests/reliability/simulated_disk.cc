#include "tests/reliability/simulated_disk.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"

namespace tidepool::test {
namespace {

using rocksdb::DataVerificationInfo;
using rocksdb::DirFsyncOptions;
using rocksdb::FileOptions;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

constexpr size_t kGarbageBytes = 512;  // a sector that was being written
constexpr uint64_t kShares = 1024;

std::string BaseName(const std::string& path) { return std::filesystem::path(path).filename(); }
std::string FolderOf(const std::string& path) { return std::filesystem::path(path).parent_path(); }

// splitmix64 over the parts of the name of one call.
uint64_t Mix(uint64_t state) {
  state += 0x9e3779b97f4a7c15u;
  state = (state ^ state >> 30) * 0xbf58476d1ce4e5b9u;
  state = (state ^ state >> 27) * 0x94d049bb133111ebu;
  return state ^ state >> 31;
}

}  // namespace

class SimulatedDisk::WritableFile final : public rocksdb::FSWritableFileOwnerWrapper {
 public:
  using Base = FSWritableFileOwnerWrapper;
  WritableFile(SimulatedDisk* disk, std::string name, std::unique_ptr<rocksdb::FSWritableFile> file)
      : Base(std::move(file)), disk_(disk), name_(std::move(name)) {}

  IOStatus Append(const Slice& data, const IOOptions& options, IODebugContext* context) override {
    size_t part = data.size();
    const IOStatus status = disk_->BeforeWrite(name_, data.size(), &part);
    if (part > 0) {
      const IOStatus written = Base::Append(Slice(data.data(), part), options, context);
      if (!written.ok()) return written;
      disk_->Wrote(name_, part);
    }
    return status;
  }
  IOStatus Append(const Slice& data, const IOOptions& options, const DataVerificationInfo&,
                  IODebugContext* context) override {
    return Append(data, options, context);
  }
  // The real one would take most of the time, and nothing here depends on it.
  IOStatus Sync(const IOOptions&, IODebugContext*) override { return disk_->Sync(name_); }
  IOStatus Fsync(const IOOptions&, IODebugContext*) override { return disk_->Sync(name_); }
  IOStatus RangeSync(uint64_t, uint64_t, const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }

 private:
  SimulatedDisk* const disk_;
  const std::string name_;
};

class SimulatedDisk::RandomAccessFile final : public rocksdb::FSRandomAccessFileOwnerWrapper {
 public:
  using Base = FSRandomAccessFileOwnerWrapper;
  RandomAccessFile(SimulatedDisk* disk, std::string name, std::unique_ptr<rocksdb::FSRandomAccessFile> file)
      : Base(std::move(file)), disk_(disk), name_(std::move(name)) {}

  IOStatus Read(uint64_t offset, size_t n, const IOOptions& options, Slice* result, char* scratch,
                IODebugContext* context) const override {
    if (disk_->Fails(Call::kRead, name_)) {
      if (disk_->powered_) ++disk_->failed_reads_;
      return disk_->Fail("Input/output error");
    }
    return Base::Read(offset, n, options, result, scratch, context);
  }
  IOStatus MultiRead(rocksdb::FSReadRequest* requests, size_t count, const IOOptions& options,
                     IODebugContext* context) override {
    for (size_t i = 0; i < count; ++i) {
      rocksdb::FSReadRequest& request = requests[i];
      request.status = Read(request.offset, request.len, options, &request.result, request.scratch, context);
    }
    return IOStatus::OK();
  }

 private:
  SimulatedDisk* const disk_;
  const std::string name_;
};

class SimulatedDisk::Directory final : public rocksdb::FSDirectoryWrapper {
 public:
  Directory(SimulatedDisk* disk, std::string name, std::unique_ptr<rocksdb::FSDirectory> directory)
      : FSDirectoryWrapper(std::move(directory)), disk_(disk), name_(std::move(name)) {}
  IOStatus Fsync(const IOOptions&, IODebugContext*) override { return disk_->SyncDirectory(name_); }
  IOStatus FsyncWithDirOptions(const IOOptions&, IODebugContext*, const DirFsyncOptions&) override {
    return disk_->SyncDirectory(name_);
  }

 private:
  SimulatedDisk* const disk_;
  const std::string name_;
};

SimulatedDisk::SimulatedDisk(uint64_t seed, const DiskFaults& faults)
    : FileSystemWrapper(rocksdb::FileSystem::Default()), seed_(seed), faults_(faults), random_(seed) {}

void SimulatedDisk::set_faults(const DiskFaults& faults) {
  MutexLock lock(&mutex_);
  faults_ = faults;
}

IOStatus SimulatedDisk::Fail(const char* what) {
  ++failures_;
  return IOStatus::IOError("simulated", what);
}

bool SimulatedDisk::Fails(Call call, const std::string& name) {
  if (!powered_) return true;
  MutexLock lock(&mutex_);
  int chance = 0;
  switch (call) {
    case Call::kWrite: chance = faults_.write_error; break;
    case Call::kShortWrite: chance = faults_.short_write; break;
    case Call::kSync: chance = faults_.sync_error; break;
    case Call::kRead: chance = faults_.read_error; break;
    case Call::kPowerOff: chance = faults_.power_off; break;
  }
  const std::string base = BaseName(name);
  uint64_t state = Mix(seed_ ^ static_cast<uint64_t>(call));
  for (const char c : base) state = Mix(state ^ static_cast<uint8_t>(c));
  return Mix(state ^ calls_[base]++) % 1'000'000 < static_cast<uint64_t>(chance);
}

IOStatus SimulatedDisk::BeforeWrite(const std::string& name, size_t size, size_t* part) {
  if (!powered_) {
    *part = 0;
    return Fail("no power");
  }
  if (full_) {
    *part = 0;
    ++failures_;
    return IOStatus::NoSpace("simulated", "No space left on device");
  }
  if (Fails(Call::kPowerOff, name)) {
    *part = size / 2;
    powered_ = false;
    return Fail("no power");
  }
  if (Fails(Call::kWrite, name)) {
    *part = 0;
    return Fail("Input/output error");
  }
  if (Fails(Call::kShortWrite, name)) {
    *part = size / 2;
    return Fail("Input/output error");
  }
  return IOStatus::OK();
}

void SimulatedDisk::Wrote(const std::string& name, size_t size) {
  MutexLock lock(&mutex_);
  files_[name].bytes += size;
}

IOStatus SimulatedDisk::Sync(const std::string& name) {
  if (Fails(Call::kSync, name)) return Fail("Input/output error");
  MutexLock lock(&mutex_);
  File& file = files_[name];
  file.synced_bytes = file.bytes;
  return IOStatus::OK();
}

IOStatus SimulatedDisk::SyncDirectory(const std::string& name) {
  if (Fails(Call::kSync, name)) return Fail("Input/output error");
  MutexLock lock(&mutex_);
  std::erase_if(changes_, [&name](const Change& change) { return FolderOf(change.name) == name; });
  return IOStatus::OK();
}

void SimulatedDisk::Create(const std::string& name) {
  MutexLock lock(&mutex_);
  files_[name] = File();
  changes_.push_back({.name = name, .old_content = std::nullopt});
}

IOStatus SimulatedDisk::NewWritableFile(const std::string& name, const FileOptions& options,
                                        std::unique_ptr<rocksdb::FSWritableFile>* file, IODebugContext* context) {
  if (!powered_) return Fail("no power");
  std::unique_ptr<rocksdb::FSWritableFile> real;
  const IOStatus status = target()->NewWritableFile(name, options, &real, context);
  if (!status.ok()) return status;
  Create(name);
  *file = std::make_unique<WritableFile>(this, name, std::move(real));
  return status;
}

IOStatus SimulatedDisk::ReopenWritableFile(const std::string& name, const FileOptions& options,
                                           std::unique_ptr<rocksdb::FSWritableFile>* file, IODebugContext* context) {
  if (!powered_) return Fail("no power");
  std::unique_ptr<rocksdb::FSWritableFile> real;
  const IOStatus status = target()->ReopenWritableFile(name, options, &real, context);
  if (status.ok()) *file = std::make_unique<WritableFile>(this, name, std::move(real));
  return status;
}

// What the old file held would count as synced: a new one is as good.
IOStatus SimulatedDisk::ReuseWritableFile(const std::string& name, const std::string& old_name,
                                          const FileOptions& options, std::unique_ptr<rocksdb::FSWritableFile>* file,
                                          IODebugContext* context) {
  const IOStatus deleted = DeleteFile(old_name, options.io_options, context);
  return deleted.ok() ? NewWritableFile(name, options, file, context) : deleted;
}

IOStatus SimulatedDisk::NewRandomAccessFile(const std::string& name, const FileOptions& options,
                                            std::unique_ptr<rocksdb::FSRandomAccessFile>* file,
                                            IODebugContext* context) {
  if (!powered_) return Fail("no power");
  std::unique_ptr<rocksdb::FSRandomAccessFile> real;
  const IOStatus status = target()->NewRandomAccessFile(name, options, &real, context);
  if (status.ok()) *file = std::make_unique<RandomAccessFile>(this, name, std::move(real));
  return status;
}

IOStatus SimulatedDisk::NewSequentialFile(const std::string& name, const FileOptions& options,
                                          std::unique_ptr<rocksdb::FSSequentialFile>* file, IODebugContext* context) {
  return powered_ ? target()->NewSequentialFile(name, options, file, context) : Fail("no power");
}

IOStatus SimulatedDisk::NewDirectory(const std::string& name, const IOOptions& options,
                                     std::unique_ptr<rocksdb::FSDirectory>* directory, IODebugContext* context) {
  if (!powered_) return Fail("no power");
  std::unique_ptr<rocksdb::FSDirectory> real;
  const IOStatus status = target()->NewDirectory(name, options, &real, context);
  if (status.ok()) *directory = std::make_unique<Directory>(this, name, std::move(real));
  return status;
}

IOStatus SimulatedDisk::DeleteFile(const std::string& name, const IOOptions& options, IODebugContext* context) {
  if (!powered_) return Fail("no power");
  const IOStatus status = target()->DeleteFile(name, options, context);
  if (!status.ok()) return status;
  MutexLock lock(&mutex_);
  files_.erase(name);
  return status;
}

IOStatus SimulatedDisk::RenameFile(const std::string& from, const std::string& to, const IOOptions& options,
                                   IODebugContext* context) {
  if (!powered_) return Fail("no power");
  std::optional<std::string> old_content;
  if (std::ifstream there(to, std::ios::binary); there.is_open()) {
    old_content.emplace(std::istreambuf_iterator<char>(there), std::istreambuf_iterator<char>());
  }
  const IOStatus status = target()->RenameFile(from, to, options, context);
  if (!status.ok()) return status;
  MutexLock lock(&mutex_);
  files_[to] = files_[from];
  files_.erase(from);
  changes_.push_back({.name = to, .old_content = std::move(old_content)});
  return status;
}

// How much is left is a share and not a number of bytes: some files differ by a byte or two from run to run.
void SimulatedDisk::ForgetEnd(const std::string& name, const File& file, uint64_t draw) {
  const uint64_t unsynced = file.bytes - file.synced_bytes;
  if (unsynced == 0) return;
  std::mt19937_64 random(draw);
  const uint64_t left = file.synced_bytes + unsynced * (random() % (kShares + 1)) / kShares;
  std::error_code gone;  // a file that RocksDB has dropped in another way
  std::filesystem::resize_file(name, left, gone);
  if (gone || !absl::EndsWith(name, ".log") || random() % 2 == 0) return;
  const uint64_t garbage = std::min<uint64_t>(left - file.synced_bytes, kGarbageBytes);
  std::fstream end(name, std::ios::binary | std::ios::in | std::ios::out);
  end.seekp(static_cast<std::streamoff>(left - garbage));
  for (uint64_t i = 0; i < garbage; ++i) end.put(static_cast<char>(random()));
}

void SimulatedDisk::PowerOn(bool synced_only) {
  MutexLock lock(&mutex_);
  if (synced_only) {
    for (const auto& [name, file] : files_) ForgetEnd(name, file, random_());
    const size_t kept = changes_.empty() ? 0 : random_() % (changes_.size() + 1);
    for (size_t i = changes_.size(); i-- > kept;) {
      const Change& change = changes_[i];
      std::error_code gone;
      if (change.old_content.has_value()) {
        std::ofstream(change.name, std::ios::binary | std::ios::trunc) << *change.old_content;
      } else {
        std::filesystem::remove(change.name, gone);
      }
    }
  }
  files_.clear();  // what is there now is what the disk holds
  changes_.clear();
  powered_ = true;
}

}  // namespace tidepool::test
