// RocksDB's files, with every refused write marked as one that may succeed later, and failed reads counted: an iterator
// of RocksDB 7.8 that meets one while others of its files can be read may end there without an error.
//
// RocksDB 7.8 takes an I/O error for final unless the file system calls it retryable, which the POSIX one does for few:
// after EIO, EROFS, EDQUOT or EFBIG, and after ENOSPC where a new log is begun, all writes are refused until the
// process starts again. For other ENOSPC it waits for free space by itself, looking every 5 s, and answers Busy to
// Resume. Marked so, each of these ends with the Resume that follows the disk's recovery: memtables are flushed to new
// files and a new log is begun, so nothing depends on what the failed write may have left behind.
#ifndef TIDEPOOL_CACHESERVICE_ROCKSDB_RESUMABLE_FILES_H_
#define TIDEPOOL_CACHESERVICE_ROCKSDB_RESUMABLE_FILES_H_

#include <atomic>
#include <cstdint>
#include <memory>

namespace rocksdb {
class Env;
}

namespace tidepool {

// An environment over the files of `base`. Threads and time are those of `base`. Both outlive it.
std::unique_ptr<rocksdb::Env> MakeResumableEnv(rocksdb::Env* base, std::atomic<uint64_t>* failed_reads);

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_ROCKSDB_RESUMABLE_FILES_H_
