// RocksDB itself in a bare loop, with the options of the disk tier's database or some of them changed: values under
// ascending keys, as the tier keeps them. Errors end the program.
#ifndef TIDEPOOL_BENCH_CACHE_BARE_ROCKSDB_H_
#define TIDEPOOL_BENCH_CACHE_BARE_ROCKSDB_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "bench/cache/items.h"

namespace rocksdb {
class ColumnFamilyHandle;
class DB;
}  // namespace rocksdb

namespace tidepool::bench {

// Options as RocksDB reads them: "name=value;name=value".
struct RocksDbChanges {
  std::string database, values;  // of the whole, of the family of values
};

class BareRocksDb {
 public:
  // options_of: a directory in which a Database was opened, whose options are taken.
  BareRocksDb(const std::string& directory, const std::string& options_of, const RocksDbChanges& changes);
  ~BareRocksDb();
  BareRocksDb(const BareRocksDb&) = delete;
  BareRocksDb& operator=(const BareRocksDb&) = delete;

  // In one batch. durable: through a log that is synced before this returns.
  void Put(absl::Span<const Item> items, bool durable);
  // Until all is in files.
  void Flush();
  void GetAndCompare(absl::Span<const Item> items);

 private:
  std::vector<rocksdb::ColumnFamilyHandle*> families_;
  std::unique_ptr<rocksdb::DB> db_;
  rocksdb::ColumnFamilyHandle* values_ = nullptr;
  absl::flat_hash_map<BlockId, std::string> keys_;
  uint64_t next_ = 0;
};

}  // namespace tidepool::bench

#endif  // TIDEPOOL_BENCH_CACHE_BARE_ROCKSDB_H_
