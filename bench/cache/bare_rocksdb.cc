#include "bench/cache/bare_rocksdb.h"

#include <rocksdb/convenience.h>
#include <rocksdb/db.h>
#include <rocksdb/utilities/options_util.h>

#include <filesystem>
#include <string_view>

#include "base/check.h"

namespace tidepool::bench {
namespace {

constexpr std::string_view kValues = "block_values";

// Ascending, as the tier's.
std::string KeyOf(uint64_t number) {
  std::string key(28, '\0');
  for (int i = 0; i < 8; ++i) key[i] = static_cast<char>(number >> (56 - 8 * i));
  return key;
}

}  // namespace

BareRocksDb::BareRocksDb(const std::string& directory, const std::string& options_of, const RocksDbChanges& changes) {
  std::filesystem::create_directories(directory);
  rocksdb::DBOptions options;
  std::vector<rocksdb::ColumnFamilyDescriptor> families;
  rocksdb::ConfigOptions config;
  config.ignore_unknown_options = true;
  TIDEPOOL_CHECK(rocksdb::LoadLatestOptions(config, options_of + "/db", &options, &families).ok());
  config.ignore_unknown_options = false;
  TIDEPOOL_CHECK(rocksdb::GetDBOptionsFromString(config, options, changes.database, &options).ok());
  for (rocksdb::ColumnFamilyDescriptor& family : families) {
    if (family.name != kValues) continue;
    const rocksdb::ColumnFamilyOptions unchanged = family.options;
    TIDEPOOL_CHECK(rocksdb::GetColumnFamilyOptionsFromString(config, unchanged, changes.values, &family.options).ok());
  }
  options.create_if_missing = true;
  options.create_missing_column_families = true;
  rocksdb::DB* db = nullptr;
  TIDEPOOL_CHECK(rocksdb::DB::Open(options, directory, families, &families_, &db).ok());
  db_.reset(db);
  for (rocksdb::ColumnFamilyHandle* family : families_) {
    if (family->GetName() == kValues) values_ = family;
  }
  TIDEPOOL_CHECK(values_ != nullptr);
}

BareRocksDb::~BareRocksDb() {
  for (rocksdb::ColumnFamilyHandle* family : families_) db_->DestroyColumnFamilyHandle(family);
}

void BareRocksDb::Put(absl::Span<const Item> items, bool durable) {
  rocksdb::WriteBatch batch;
  for (const Item& item : items) {
    keys_[item.id] = KeyOf(next_++);
    TIDEPOOL_CHECK(batch.Put(values_, keys_[item.id], *item.value).ok());
  }
  rocksdb::WriteOptions options;
  options.disableWAL = !durable;
  options.sync = durable;
  TIDEPOOL_CHECK(db_->Write(options, &batch).ok());
}

void BareRocksDb::Flush() { TIDEPOOL_CHECK(db_->Flush(rocksdb::FlushOptions(), families_).ok()); }

void BareRocksDb::GetAndCompare(absl::Span<const Item> items) {
  rocksdb::ReadOptions options;
  options.fill_cache = false;
  for (const Item& item : items) {
    rocksdb::PinnableSlice value;
    TIDEPOOL_CHECK(db_->Get(options, values_, keys_.at(item.id), &value).ok());
    TIDEPOOL_CHECK(value == *item.value);
  }
}

}  // namespace tidepool::bench
