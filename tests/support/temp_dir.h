// A fresh directory that is removed, with all it holds, at the end of the scope.
#ifndef TIDEPOOL_TESTS_SUPPORT_TEMP_DIR_H_
#define TIDEPOOL_TESTS_SUPPORT_TEMP_DIR_H_

#include <stdlib.h>

#include <filesystem>
#include <stdexcept>
#include <string>
#include <system_error>

namespace tidepool::test {

class TempDir {
 public:
  TempDir() : path_((std::filesystem::temp_directory_path() / "tidepool-test-XXXXXX").string()) {
    if (mkdtemp(path_.data()) == nullptr) throw std::runtime_error("cannot create " + path_);
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  // Path of an entry, whether it exists or not.
  std::string File(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_SUPPORT_TEMP_DIR_H_
