// The one RocksDB database of a cache, as byte strings in a few families: the only place that knows RocksDB, whose
// headers stay in the .cc. Thread-safe.
//
// Files: <data_dir>/db. Errors of the disk (full, read-only, I/O) refuse writes until the disk takes them again; reads
// go on. Then the files are opened anew, for which calls wait: unlogged writes whose flush had failed are lost, as in a
// crash. A visitor of Scan must not call the database.
//
// Damage: who reads what a damaged file holds is told DataLoss; the rest is served, and writes are taken. From the
// first that is met on, files are not merged any more, but for those of block values (an error in the log says so).
#ifndef TIDEPOOL_CACHESERVICE_ROCKSDB_DATABASE_H_
#define TIDEPOOL_CACHESERVICE_ROCKSDB_DATABASE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

namespace rocksdb {
class Env;
}

namespace tidepool {

// Column families. The names are part of the stored format.
enum class Family : uint8_t { kMeta = 0, kBlockIndex = 1, kBlockValues = 2, kManifests = 3 };

struct DatabaseOptions {
  std::string data_dir;
  uint64_t write_buffer_bytes = 32 << 20;  // of block values in memory before they become a file; 64 KiB to 1 GiB
  absl::Duration resume_interval = absl::Seconds(1);  // between attempts to write to a disk that refused
  rocksdb::Env* env = nullptr;  // for tests that make the disk fail; null: the system's. Outlives the database
};

// One change. The bytes are the caller's until Write returns.
struct Mutation {
  Family family;
  std::string_view key;
  std::string_view value;  // ignored when erasing
  bool erase = false;
};

enum class Durability : uint8_t {
  kUnlogged,  // survives an orderly close; a crash may lose it (a whole Write or nothing of it)
  kSynced,    // survives SIGKILL and power loss once Write has returned; concurrent writers share a sync
};

class Database {
 public:
  // Makes the directory when it is absent. FailedPrecondition: in use by another process, or another format version.
  static absl::StatusOr<std::unique_ptr<Database>> Open(const DatabaseOptions& options);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  // All or nothing. ResourceExhausted: the disk takes no writes (the message says why).
  absl::Status Write(absl::Span<const Mutation> mutations, Durability durability);

  // nullopt: absent. DataLoss: RocksDB's checksum differs. Unavailable: the disk could not be read.
  using ReadResult = absl::StatusOr<std::optional<std::string>>;
  ReadResult Get(Family family, std::string_view key) const;

  // Calls visit(key, value) in order of keys in [first, end) until it returns false; an empty `end` means no end.
  // DataLoss: at the first damage; a file that cannot be opened may be met before the first key. Unavailable: the disk
  // could not be read, and what was visited may not be all.
  absl::Status Scan(Family family, std::string_view first, std::string_view end,
                    absl::FunctionRef<bool(std::string_view key, std::string_view value)> visit) const;

  // No key of a file of this family is larger; empty: there is no file. Of damaged files, too. What was there when the
  // database was opened is in files.
  std::string LargestKeyInFiles(Family family) const;

  // Deletes the files all of whose keys are below `end`, without reading them. Keys below `end` in other files stay.
  absl::Status DropFilesBelow(Family family, std::string_view end);

  // Everything written so far is in files.
  absl::Status Flush();

  // Merges the files of all families but the block values, whose files are dropped whole: what was replaced or erased
  // takes no room any more. Takes as long as reading and writing them.
  absl::Status Compact();

  uint64_t UsedBytes() const;  // of all files
  bool writable() const;       // the last write did not fail
  // How often the files were opened anew. When it has changed, unlogged writes since the last Flush may be lost.
  uint64_t losses() const;

 private:
  class Impl;
  explicit Database(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_ROCKSDB_DATABASE_H_
