#include "cacheservice/rocksdb/database.h"

#include <algorithm>
#include <array>
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
#include "rocksdb/cache.h"
#include "rocksdb/convenience.h"
#include "rocksdb/db.h"
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
  if (status.IsNoSpace()) {
    return absl::ResourceExhaustedError(absl::StrCat("data_dir ", data_dir, ": disk full: ", text));
  }
  return absl::UnavailableError(absl::StrCat("data_dir ", data_dir, " cannot be opened: ", text));
}

rocksdb::DBOptions MakeDbOptions(const DatabaseOptions& options) {
  rocksdb::DBOptions db;
  db.create_if_missing = true;
  db.create_missing_column_families = true;
  db.max_background_jobs = 2;
  db.max_open_files = kMaxOpenFiles;
  // A crash loses unlogged writes of all families or of none, so index and values agree.
  db.atomic_flush = true;
  db.max_total_wal_size = 4 * options.write_buffer_bytes;
  db.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;  // the end of the log may be torn by a crash
  db.max_log_file_size = kInfoLogBytes;
  db.keep_log_file_num = kInfoLogs;
  db.info_log_level = rocksdb::InfoLogLevel::WARN_LEVEL;
  db.max_manifest_file_size = uint64_t{16} << 20;
  db.stats_dump_period_sec = 0;
  db.stats_persist_period_sec = 0;
  db.max_bgerror_resume_count = 0;  // Write resumes, at most once in resume_interval
  if (options.env != nullptr) db.env = options.env;
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

}  // namespace

class Database::Impl {
 public:
  Impl(DatabaseOptions options, rocksdb::DB* db, std::vector<rocksdb::ColumnFamilyHandle*> handles)
      : options_(std::move(options)), db_(db), handles_(std::move(handles)) {}

  ~Impl() {
    for (rocksdb::ColumnFamilyHandle* handle : handles_) db_->DestroyColumnFamilyHandle(handle);
    const rocksdb::Status closed = db_->Close();  // flushes what was not logged
    if (!closed.ok()) TP_LOG(Warning, "cache", "closing ", options_.data_dir, ": ", closed.ToString());
  }

  rocksdb::DB* db() const { return db_.get(); }
  const DatabaseOptions& options() const { return options_; }
  rocksdb::ColumnFamilyHandle* handle(Family family) const { return handles_[static_cast<size_t>(family)]; }

  // After a failed write RocksDB refuses all others until it is resumed; trying that for each write would flood a full
  // disk with attempts.
  void ResumeIfDue() {
    {
      MutexLock lock(&mutex_);
      if (writable_ || absl::Now() - last_resume_ < options_.resume_interval) return;
      last_resume_ = absl::Now();
    }
    db_->Resume().PermitUncheckedError();  // the write that follows tells
  }

  absl::Status Written(const rocksdb::Status& status) {
    MutexLock lock(&mutex_);
    if (status.ok()) {
      if (!writable_) TP_LOG(Info, "cache", options_.data_dir, " takes writes again");
      writable_ = true;
      return absl::OkStatus();
    }
    if (writable_) TP_LOG(Error, "cache", options_.data_dir, " takes no writes: ", status.ToString());
    if (writable_) last_resume_ = absl::Now();
    writable_ = false;
    return absl::ResourceExhaustedError(
        absl::StrCat("data_dir ", options_.data_dir, " takes no writes: ", status.ToString()));
  }

  bool writable() const {
    MutexLock lock(&mutex_);
    return writable_;
  }

 private:
  const DatabaseOptions options_;
  const std::unique_ptr<rocksdb::DB> db_;
  const std::vector<rocksdb::ColumnFamilyHandle*> handles_;  // by Family
  mutable Mutex mutex_;
  bool writable_ ABSL_GUARDED_BY(mutex_) = true;
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
  const std::shared_ptr<rocksdb::Cache> cache = rocksdb::NewLRUCache(kBlockCacheBytes);
  std::vector<rocksdb::ColumnFamilyDescriptor> families;
  for (int i = 0; i < kFamilies; ++i) {
    const bool values = static_cast<Family>(i) == Family::kBlockValues;
    const size_t buffer =
        values ? options.write_buffer_bytes : std::min<size_t>(options.write_buffer_bytes, kSmallWriteBufferBytes);
    families.emplace_back(kFamilyNames[i], MakeFamilyOptions(buffer, cache));
  }
  rocksdb::DB* db = nullptr;
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  const rocksdb::Status status =
      rocksdb::DB::Open(MakeDbOptions(options), options.data_dir + "/db", families, &handles, &db);
  if (!status.ok()) return OpenError(options.data_dir, status);
  std::unique_ptr<Database> database(new Database(std::make_unique<Impl>(options, db, std::move(handles))));

  TP_ASSIGN_OR_RETURN(const std::optional<std::string> format, database->Get(Family::kMeta, kFormatKey));
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
  rocksdb::WriteBatch batch;
  for (const Mutation& mutation : mutations) {
    rocksdb::ColumnFamilyHandle* handle = impl_->handle(mutation.family);
    const rocksdb::Status added = mutation.erase ? batch.Delete(handle, ToSlice(mutation.key))
                                                 : batch.Put(handle, ToSlice(mutation.key), ToSlice(mutation.value));
    TIDEPOOL_CHECK(added.ok());  // keys and values are below 4 GiB
  }
  rocksdb::WriteOptions write;
  write.sync = durability == Durability::kSynced;
  write.disableWAL = durability == Durability::kUnlogged;
  return impl_->Written(impl_->db()->Write(write, &batch));
}

Database::ReadResult Database::Get(Family family, std::string_view key) const {
  rocksdb::ReadOptions read;
  read.fill_cache = family != Family::kBlockValues;
  std::string value;
  const rocksdb::Status status = impl_->db()->Get(read, impl_->handle(family), ToSlice(key), &value);
  if (status.ok()) return value;
  if (status.IsNotFound()) return std::nullopt;
  return ReadError(status);
}

std::vector<Database::ReadResult> Database::MultiGet(Family family, absl::Span<const std::string> keys) const {
  rocksdb::ReadOptions read;
  read.fill_cache = family != Family::kBlockValues;
  std::vector<rocksdb::Slice> slices(keys.begin(), keys.end());
  std::vector<rocksdb::PinnableSlice> values(keys.size());
  std::vector<rocksdb::Status> statuses(keys.size());
  impl_->db()->MultiGet(read, impl_->handle(family), keys.size(), slices.data(), values.data(), statuses.data());
  std::vector<ReadResult> results;
  results.reserve(keys.size());
  for (size_t i = 0; i < keys.size(); ++i) {
    if (statuses[i].ok()) {
      results.emplace_back(std::string(ToView(values[i])));
      values[i].Reset();
    } else if (statuses[i].IsNotFound()) {
      results.emplace_back(std::nullopt);
    } else {
      results.emplace_back(ReadError(statuses[i]));
    }
  }
  return results;
}

absl::Status Database::Scan(Family family, std::string_view first, std::string_view end,
                            absl::FunctionRef<bool(std::string_view, std::string_view)> visit) const {
  rocksdb::ReadOptions read;
  read.fill_cache = false;
  const rocksdb::Slice upper = ToSlice(end);
  if (!end.empty()) read.iterate_upper_bound = &upper;
  const std::unique_ptr<rocksdb::Iterator> it(impl_->db()->NewIterator(read, impl_->handle(family)));
  for (it->Seek(ToSlice(first)); it->Valid(); it->Next()) {
    if (!visit(ToView(it->key()), ToView(it->value()))) return absl::OkStatus();
  }
  return it->status().ok() ? absl::OkStatus() : ReadError(it->status());
}

absl::Status Database::DropFilesBelow(Family family, std::string_view end) {
  const rocksdb::Slice upper = ToSlice(end);
  const rocksdb::Status status =
      rocksdb::DeleteFilesInRange(impl_->db(), impl_->handle(family), nullptr, &upper, /*include_end=*/false);
  return status.ok() ? absl::OkStatus() : absl::UnavailableError(absl::StrCat("database: ", status.ToString()));
}

absl::Status Database::Flush() {
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  for (int i = 0; i < kFamilies; ++i) handles.push_back(impl_->handle(static_cast<Family>(i)));
  return impl_->Written(impl_->db()->Flush(rocksdb::FlushOptions(), handles));
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

}  // namespace tidepool
