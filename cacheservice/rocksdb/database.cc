#include "cacheservice/rocksdb/database.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/check.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "cacheservice/rocksdb/resumable_files.h"
#include "rocksdb/cache.h"
#include "rocksdb/convenience.h"
#include "rocksdb/db.h"
#include "rocksdb/env.h"
#include "rocksdb/metadata.h"
#include "rocksdb/table.h"
#include "rocksdb/write_batch.h"

namespace tidepool {
namespace {

constexpr int kFamilies = 4;
constexpr std::array<const char*, kFamilies> kFamilyNames = {"default", "block_index", "block_values", "manifests"};
constexpr std::string_view kFormatKey = "format";
constexpr std::string_view kFormatVersion = "1";

// Block values are read once and then live in the memory tier, so this holds little but index blocks.
constexpr size_t kBlockCacheBytes = size_t{16} << 20;
constexpr int kMaxOpenFiles = 512;
constexpr size_t kProbeBytes = size_t{64} << 10;  // written to a disk that refused, before files are closed on it
constexpr uint64_t kMinWriteBufferBytes = uint64_t{64} << 10;
constexpr uint64_t kMaxWriteBufferBytes = uint64_t{1} << 30;
constexpr size_t kSmallWriteBufferBytes = size_t{8} << 20;
constexpr size_t kInfoLogBytes = size_t{4} << 20;  // of each of kInfoLogs files of RocksDB's own log
constexpr size_t kInfoLogs = 3;

rocksdb::Slice ToSlice(std::string_view bytes) { return {bytes.data(), bytes.size()}; }
std::string_view ToView(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }

absl::Status ReadError(const rocksdb::Status& status) {
  if (status.IsCorruption()) return absl::DataLossError(absl::StrCat("database: ", status.ToString()));
  return absl::UnavailableError(absl::StrCat("database: read failed: ", status.ToString()));
}

absl::Status OpenError(const std::string& data_dir, const rocksdb::Status& status) {
  const std::string text = status.ToString();
  // RocksDB has no code for it; the file's name is part of the message.
  if (status.IsIOError() && absl::StrContains(text, "lock ")) {
    return absl::FailedPreconditionError(
        absl::StrCat("data_dir ", data_dir, " is in use by another process (or another cache of this one): ", text));
  }
  if (status.IsCorruption()) {
    return absl::DataLossError(absl::StrCat("data_dir ", data_dir, " is damaged: ", text));
  }
  // resumable_files.h takes its code from it.
  if (status.IsNoSpace() || absl::StrContains(text, std::strerror(ENOSPC))) {
    return absl::ResourceExhaustedError(absl::StrCat("data_dir ", data_dir, ": disk full: ", text));
  }
  return absl::UnavailableError(absl::StrCat("data_dir ", data_dir, " cannot be opened: ", text));
}

rocksdb::DBOptions MakeDbOptions(const DatabaseOptions& options, rocksdb::Env* env) {
  rocksdb::DBOptions db;
  db.create_if_missing = true;
  db.create_missing_column_families = true;
  db.max_background_jobs = 2;
  db.max_open_files = kMaxOpenFiles;
  // A crash loses unlogged writes of all families or of none, so index and values agree.
  db.atomic_flush = true;
  db.max_total_wal_size = 4 * options.write_buffer_bytes;
  db.bytes_per_sync = uint64_t{1} << 20;  // files go to the disk as they are written, not all of them at their end
  db.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;  // the end of the log may be torn by a crash
  db.max_log_file_size = kInfoLogBytes;
  db.keep_log_file_num = kInfoLogs;
  db.info_log_level = rocksdb::InfoLogLevel::WARN_LEVEL;
  db.max_manifest_file_size = uint64_t{16} << 20;
  db.stats_dump_period_sec = 0;
  db.stats_persist_period_sec = 0;
  db.max_bgerror_resume_count = 0;  // Write resumes, at most once in resume_interval
  db.env = env;
  return db;
}

rocksdb::ColumnFamilyOptions MakeFamilyOptions(size_t write_buffer_bytes, std::shared_ptr<rocksdb::Cache> cache) {
  rocksdb::ColumnFamilyOptions family;
  family.write_buffer_size = write_buffer_bytes;
  family.max_write_buffer_number = 3;
  family.target_file_size_base = write_buffer_bytes;
  family.compression = rocksdb::kNoCompression;
  family.level_compaction_dynamic_level_bytes = true;
  family.ttl = 0;
  family.periodic_compaction_seconds = 0;
  // Keys of blocks are ascending sequence numbers, so files never overlap: a compaction from level 0 renames. Only
  // files below level 0 can be dropped whole, so they go there at once.
  family.level0_file_num_compaction_trigger = 2;
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = std::move(cache);
  table.cache_index_and_filter_blocks = true;
  table.checksum = rocksdb::kXXH3;
  family.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  return family;
}

// RocksDB as it was opened once.
struct OpenFiles {
  std::unique_ptr<rocksdb::DB> db;
  std::vector<rocksdb::ColumnFamilyHandle*> handles;  // by Family
  bool damaged = false;

  rocksdb::ColumnFamilyHandle* handle(Family family) const { return handles[static_cast<size_t>(family)]; }
  ~OpenFiles() {
    for (rocksdb::ColumnFamilyHandle* handle : handles) db->DestroyColumnFamilyHandle(handle);
    const std::string name = db->GetName();
    const rocksdb::Status closed = db->Close();  // flushes what was not logged
    if (!closed.ok()) TP_LOG(Warning, "cache", "closing ", name, ": ", closed.ToString());
  }
};

// `damaged`: what is damaged is only met by who reads it. Files that cannot be opened are no reason not to open the
// others, and there are no compactions, which would meet the damage again and end all writes. Block values are
// compacted all the same: their files are renamed, not read, and only compacted ones can be dropped whole.
absl::StatusOr<std::unique_ptr<OpenFiles>> OpenDatabase(const DatabaseOptions& options, rocksdb::Env* env,
                                                        bool damaged) {
  const std::shared_ptr<rocksdb::Cache> cache = rocksdb::NewLRUCache(kBlockCacheBytes);
  std::vector<rocksdb::ColumnFamilyDescriptor> families;
  for (int i = 0; i < kFamilies; ++i) {
    const bool values = static_cast<Family>(i) == Family::kBlockValues;
    const size_t buffer =
        values ? options.write_buffer_bytes : std::min<size_t>(options.write_buffer_bytes, kSmallWriteBufferBytes);
    families.emplace_back(kFamilyNames[i], MakeFamilyOptions(buffer, cache));
    families.back().options.disable_auto_compactions = damaged && !values;
  }
  rocksdb::DBOptions db_options = MakeDbOptions(options, env);
  db_options.paranoid_checks = !damaged;
  rocksdb::DB* db = nullptr;
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  const rocksdb::Status status = rocksdb::DB::Open(db_options, options.data_dir + "/db", families, &handles, &db);
  if (status.IsCorruption() && !damaged) {
    TP_LOG(Error, "cache", "data_dir ", options.data_dir, " is damaged, what can be read is kept: ", status.ToString());
    return OpenDatabase(options, env, /*damaged=*/true);
  }
  if (!status.ok()) return OpenError(options.data_dir, status);
  auto files = std::make_unique<OpenFiles>();
  files->db.reset(db);
  files->handles = std::move(handles);
  files->damaged = damaged;
  return files;
}

}  // namespace

class Database::Impl {
 public:
  explicit Impl(DatabaseOptions options)
      : options_(std::move(options)),
        env_(MakeResumableEnv(options_.env != nullptr ? options_.env : rocksdb::Env::Default(), &failed_reads_)) {}

  // Before all else.
  absl::Status Open() {
    TP_ASSIGN_OR_RETURN(files_, OpenDatabase(options_, env_.get(), /*damaged=*/false));
    MutexLock lock(&mutex_);
    damaged_ = files_->damaged;
    return absl::OkStatus();
  }

  const DatabaseOptions& options() const { return options_; }
  uint64_t losses() const { return losses_; }
  uint64_t failed_reads() const { return failed_reads_; }

  // Holds the files open for one call; waits while they are opened anew. A thread holds one at a time.
  class Use {
   public:
    explicit Use(Impl* impl) : impl_(impl) {
      MutexLock lock(&impl_->mutex_);
      while (impl_->reopening_) impl_->changed_.Wait(&impl_->mutex_);
      ++impl_->uses_;
    }
    ~Use() {
      MutexLock lock(&impl_->mutex_);
      --impl_->uses_;
      impl_->changed_.SignalAll();
    }
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;
    // False: they could not be opened anew. Ask before anything else.
    explicit operator bool() const { return impl_->files_ != nullptr; }
    rocksdb::DB* db() const { return impl_->files_->db.get(); }
    rocksdb::ColumnFamilyHandle* handle(Family family) const { return impl_->files_->handle(family); }
    const std::vector<rocksdb::ColumnFamilyHandle*>& handles() const { return impl_->files_->handles; }
    absl::Status NotOpen() const {
      return absl::UnavailableError(
          absl::StrCat("database: ", impl_->options_.data_dir, " could not be opened again after a failed write"));
    }

   private:
    Impl* const impl_;
  };

  // One write. False: RocksDB may not be given any, since one has failed and it has not been resumed.
  class Writing {
   public:
    explicit Writing(Impl* impl) : impl_(impl) {
      MutexLock lock(&impl_->mutex_);
      begun_ = impl_->may_write_;
      impl_->writing_ += begun_ ? 1 : 0;
    }
    ~Writing() {
      MutexLock lock(&impl_->mutex_);
      impl_->writing_ -= begun_ ? 1 : 0;
      impl_->changed_.SignalAll();
    }
    Writing(const Writing&) = delete;
    Writing& operator=(const Writing&) = delete;
    explicit operator bool() const { return begun_; }

   private:
    Impl* const impl_;
    bool begun_ = false;
  };

  // After a failed write RocksDB refuses all others until it is resumed; trying that for each write would flood a full
  // disk with attempts.
  void ResumeIfDue() {
    bool damaged = false;
    {
      MutexLock lock(&mutex_);
      if (may_write_ || resuming_ || absl::Now() - last_resume_ < options_.resume_interval) return;
      last_resume_ = absl::Now();
      resuming_ = true;
      while (writing_ > 0) changed_.Wait(&mutex_);  // what was under way would write to the log that failed
      damaged = damaged_;
    }
    // RocksDB's own way on from here is Resume. It flushes memtables, so that nothing is lost. But it may keep the log
    // that failed, where a further write fails or aborts, and from then on a flush of RocksDB 7.8's does not wait until
    // it is done, nor does a close. So the files are opened anew after it. After damage it does not resume, and opened
    // as damaged it takes no notice of a log that failed.
    if (!damaged) {
      const Use use(this);
      if (use && HoldsUnflushed(use)) use.db()->Resume().PermitUncheckedError();
    }
    const bool resumed = DiskTakesWrites() && Reopen();
    MutexLock lock(&mutex_);
    resuming_ = false;
    may_write_ = resumed;
  }

  // Files that could not be opened anew are tried again by readers, too: they may be the only ones that come.
  void ReopenIfDue() {
    {
      MutexLock lock(&mutex_);
      if (reopening_ || files_ != nullptr) return;
    }
    ResumeIfDue();
  }

  absl::Status Written(const rocksdb::Status& status) {
    MutexLock lock(&mutex_);
    if (status.ok()) {
      if (!may_write_) return absl::OkStatus();  // under way when another one failed
      if (!writable_) TP_LOG(Info, "cache", options_.data_dir, " takes writes again");
      writable_ = true;
      return absl::OkStatus();
    }
    if (writable_) TP_LOG(Error, "cache", options_.data_dir, " takes no writes: ", status.ToString());
    if (writable_) last_resume_ = absl::Now();
    damaged_ = damaged_ || status.IsCorruption();
    writable_ = false;
    may_write_ = false;
    why_ = status.ToString();
    return RefusedLocked();
  }

  absl::Status Refused() const {
    MutexLock lock(&mutex_);
    return RefusedLocked();
  }

  bool writable() const {
    MutexLock lock(&mutex_);
    return writable_;
  }

 private:
  absl::Status RefusedLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return absl::ResourceExhaustedError(absl::StrCat("data_dir ", options_.data_dir, " takes no writes: ", why_));
  }

  static bool HoldsUnflushed(const Use& use) {
    for (rocksdb::ColumnFamilyHandle* handle : use.handles()) {
      uint64_t entries = 0;
      if (use.db()->GetIntProperty(handle, rocksdb::DB::Properties::kNumEntriesActiveMemTable, &entries) &&
          entries > 0) {
        return true;
      }
    }
    return false;
  }

  // Files that are closed on a disk that still refuses could not be opened, and reads would end, too.
  bool DiskTakesWrites() const {
    const std::string probe = options_.data_dir + "/probe";
    const rocksdb::Status written =
        rocksdb::WriteStringToFile(env_.get(), std::string(kProbeBytes, 'p'), probe, /*should_sync=*/true);
    env_->DeleteFile(probe).PermitUncheckedError();
    return written.ok();
  }

  // False: they are closed, and could not be opened.
  bool Reopen() {
    std::unique_ptr<OpenFiles> old;
    {
      MutexLock lock(&mutex_);
      reopening_ = true;
      while (uses_ > 0) changed_.Wait(&mutex_);
      old = std::move(files_);
    }
    old.reset();
    bool damaged = false;
    {
      MutexLock lock(&mutex_);
      damaged = damaged_;
    }
    if (damaged) TP_LOG(Error, "cache", "data_dir ", options_.data_dir, " is damaged, what can be read is kept");
    absl::StatusOr<std::unique_ptr<OpenFiles>> files = OpenDatabase(options_, env_.get(), damaged);
    if (!files.ok()) TP_LOG(Error, "cache", files.status().message());
    MutexLock lock(&mutex_);
    if (files.ok()) {
      files_ = *std::move(files);
      ++losses_;
    }
    reopening_ = false;
    changed_.SignalAll();
    return files.ok();
  }

  const DatabaseOptions options_;
  std::atomic<uint64_t> failed_reads_{0};  // of files
  const std::unique_ptr<rocksdb::Env> env_;
  std::unique_ptr<OpenFiles> files_;  // changes only in Reopen, while there is no Use; null: could not be opened
  std::atomic<uint64_t> losses_{0};
  mutable Mutex mutex_;
  CondVar changed_;
  int uses_ ABSL_GUARDED_BY(mutex_) = 0;
  bool reopening_ ABSL_GUARDED_BY(mutex_) = false;
  bool resuming_ ABSL_GUARDED_BY(mutex_) = false;
  bool writable_ ABSL_GUARDED_BY(mutex_) = true;
  bool may_write_ ABSL_GUARDED_BY(mutex_) = true;  // none has failed since RocksDB was opened or resumed
  int writing_ ABSL_GUARDED_BY(mutex_) = 0;
  bool damaged_ ABSL_GUARDED_BY(mutex_) = false;  // OpenDatabase
  std::string why_ ABSL_GUARDED_BY(mutex_);       // the last write failed
  absl::Time last_resume_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
};

Database::Database(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Database::~Database() = default;

absl::StatusOr<std::unique_ptr<Database>> Database::Open(const DatabaseOptions& options) {
  if (options.data_dir.empty()) return absl::InvalidArgumentError("data_dir is empty: name a directory");
  if (options.write_buffer_bytes < kMinWriteBufferBytes || options.write_buffer_bytes > kMaxWriteBufferBytes) {
    return absl::InvalidArgumentError(absl::StrCat("write_buffer_bytes ", options.write_buffer_bytes, " is not in ",
                                                   kMinWriteBufferBytes, " to ", kMaxWriteBufferBytes));
  }
  std::error_code error;
  std::filesystem::create_directories(options.data_dir, error);
  if (error) {
    return absl::UnavailableError(absl::StrCat("data_dir ", options.data_dir, " cannot be made: ", error.message()));
  }
  std::unique_ptr<Database> database(new Database(std::make_unique<Impl>(options)));
  TP_RETURN_IF_ERROR(database->impl_->Open());

  ReadResult read = database->Get(Family::kMeta, kFormatKey);
  if (absl::IsDataLoss(read.status())) {  // the other files are none the worse for it
    TP_LOG(Error, "cache", "data_dir ", options.data_dir,
           ": the format version is damaged, and written anew: ", read.status().message());
    read = std::nullopt;
  }
  TP_ASSIGN_OR_RETURN(const std::optional<std::string> format, std::move(read));
  if (!format.has_value()) {
    TP_RETURN_IF_ERROR(database->Write({{{.family = Family::kMeta, .key = kFormatKey, .value = kFormatVersion}}},
                                       Durability::kSynced));
  } else if (*format != kFormatVersion) {
    return absl::FailedPreconditionError(absl::StrCat("data_dir ", options.data_dir, " has format version ", *format,
                                                      "; this program reads version ", std::string(kFormatVersion)));
  }
  return database;
}

absl::Status Database::Write(absl::Span<const Mutation> mutations, Durability durability) {
  impl_->ResumeIfDue();
  const Impl::Writing writing(impl_.get());
  if (!writing) return impl_->Refused();
  const Impl::Use use(impl_.get());
  if (!use) return impl_->Refused();
  rocksdb::WriteBatch batch;
  for (const Mutation& mutation : mutations) {
    rocksdb::ColumnFamilyHandle* handle = use.handle(mutation.family);
    const rocksdb::Status added = mutation.erase ? batch.Delete(handle, ToSlice(mutation.key))
                                                 : batch.Put(handle, ToSlice(mutation.key), ToSlice(mutation.value));
    TIDEPOOL_CHECK(added.ok());  // keys and values are below 4 GiB
  }
  rocksdb::WriteOptions write;
  write.sync = durability == Durability::kSynced;
  write.disableWAL = durability == Durability::kUnlogged;
  return impl_->Written(use.db()->Write(write, &batch));
}

Database::ReadResult Database::Get(Family family, std::string_view key) const {
  rocksdb::ReadOptions read;
  read.fill_cache = family != Family::kBlockValues;
  impl_->ReopenIfDue();
  const Impl::Use use(impl_.get());
  if (!use) return use.NotOpen();
  rocksdb::PinnableSlice value;
  const rocksdb::Status status = use.db()->Get(read, use.handle(family), ToSlice(key), &value);
  if (status.ok()) return std::string(ToView(value));
  if (status.IsNotFound()) return std::nullopt;
  return ReadError(status);
}

absl::Status Database::Scan(Family family, std::string_view first, std::string_view end,
                            absl::FunctionRef<bool(std::string_view, std::string_view)> visit) const {
  rocksdb::ReadOptions read;
  read.fill_cache = false;
  const rocksdb::Slice upper = ToSlice(end);
  if (!end.empty()) read.iterate_upper_bound = &upper;
  impl_->ReopenIfDue();
  const Impl::Use use(impl_.get());
  if (!use) return use.NotOpen();
  const uint64_t failed_reads = impl_->failed_reads();
  const std::unique_ptr<rocksdb::Iterator> it(use.db()->NewIterator(read, use.handle(family)));
  it->Seek(ToSlice(first));
  while (it->Valid() && visit(ToView(it->key()), ToView(it->value()))) it->Next();
  if (!it->status().ok()) return ReadError(it->status());
  // The iterator may not say so (resumable_files.h). Perhaps it was another's read: then this is one error too many.
  if (impl_->failed_reads() != failed_reads) return absl::UnavailableError("database: a read failed during the scan");
  return absl::OkStatus();
}

std::string Database::LargestKeyInFiles(Family family) const {
  std::string largest;
  const Impl::Use use(impl_.get());
  if (!use) return largest;
  rocksdb::ColumnFamilyMetaData metadata;
  use.db()->GetColumnFamilyMetaData(use.handle(family), &metadata);
  for (const rocksdb::LevelMetaData& level : metadata.levels) {
    for (const rocksdb::SstFileMetaData& file : level.files) largest = std::max(largest, file.largestkey);
  }
  return largest;
}

absl::Status Database::DropFilesBelow(Family family, std::string_view end) {
  const Impl::Use use(impl_.get());
  if (!use) return use.NotOpen();
  const rocksdb::Slice upper = ToSlice(end);
  const rocksdb::Status status =
      rocksdb::DeleteFilesInRange(use.db(), use.handle(family), nullptr, &upper, /*include_end=*/false);
  return status.ok() ? absl::OkStatus() : absl::UnavailableError(absl::StrCat("database: ", status.ToString()));
}

absl::Status Database::Flush() {
  impl_->ResumeIfDue();
  const Impl::Writing writing(impl_.get());
  if (!writing) return impl_->Refused();
  const Impl::Use use(impl_.get());
  if (!use) return impl_->Refused();
  return impl_->Written(use.db()->Flush(rocksdb::FlushOptions(), use.handles()));
}

absl::Status Database::Compact() {
  TP_RETURN_IF_ERROR(Flush());
  const Impl::Use use(impl_.get());
  if (!use) return impl_->Refused();
  for (const Family family : {Family::kMeta, Family::kBlockIndex, Family::kManifests}) {
    rocksdb::CompactRangeOptions options;
    options.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForceOptimized;
    TP_RETURN_IF_ERROR(
        impl_->Written(use.db()->CompactRange(options, use.handle(family), /*begin=*/nullptr, /*end=*/nullptr)));
  }
  return absl::OkStatus();
}

uint64_t Database::UsedBytes() const {
  uint64_t bytes = 0;
  std::error_code error;  // files come and go while we look: what cannot be read counts nothing
  for (std::filesystem::directory_iterator it(impl_->options().data_dir + "/db", error), end; !error && it != end;
       it.increment(error)) {
    std::error_code file_error;
    const uint64_t size = it->file_size(file_error);
    if (!file_error) bytes += size;
  }
  return bytes;
}

bool Database::writable() const { return impl_->writable(); }
uint64_t Database::losses() const { return impl_->losses(); }

}  // namespace tidepool
