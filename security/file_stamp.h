// Small files that are watched: read whole, and read again when they have changed.
#ifndef TIDEPOOL_SECURITY_FILE_STAMP_H_
#define TIDEPOOL_SECURITY_FILE_STAMP_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace tidepool {

// Differs when a file was replaced or written, but for a write within the clock tick of the one before.
struct FileStamp {
  uint64_t device = 0, inode = 0;
  int64_t bytes = -1;  // -1: there is no such file
  int64_t modified_ns = 0;

  static FileStamp Of(const std::string& path);  // follows links
  friend bool operator==(const FileStamp&, const FileStamp&) = default;
};

// InvalidArgument naming the file: it cannot be read, or has more than `most_bytes`.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t most_bytes);

}  // namespace tidepool

#endif  // TIDEPOOL_SECURITY_FILE_STAMP_H_
