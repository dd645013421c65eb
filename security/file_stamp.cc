#include "security/file_stamp.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "absl/strings/str_cat.h"

namespace tidepool {

FileStamp FileStamp::Of(const std::string& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) return {};
  return {.device = status.st_dev,
          .inode = status.st_ino,
          .bytes = status.st_size,
          .modified_ns = int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec};
}

absl::StatusOr<std::string> ReadSmallFile(const std::string& path, size_t most_bytes) {
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  if (!in) return absl::InvalidArgumentError(absl::StrCat(path, ": cannot be read: ", std::strerror(errno)));
  std::string text(most_bytes + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (in.bad()) return absl::InvalidArgumentError(absl::StrCat(path, ": cannot be read"));
  text.resize(static_cast<size_t>(in.gcount()));
  if (text.size() > most_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": has more than ", most_bytes, " bytes"));
  }
  return text;
}

}  // namespace tidepool
