// A disabled test of this binary that runs in a process of its own, for what would end, or confine, this one. (A fork
// would not do: RocksDB's threads do not come along.)
//
//   TEST(ChildTest, DISABLED_WritesThenHangs) { ...ChildDirectory()...; ReportAndWait("done"); }
//   ...
//   const auto child = StartChildTest("ChildTest.DISABLED_WritesThenHangs", dir.path());
//   EXPECT_EQ(child->WaitForLine("report: "), "report: done");
//   child->Kill();  // nothing is closed, no destructor runs
#ifndef TIDEPOOL_TESTS_CACHESERVICE_ROCKSDB_CHILD_TEST_H_
#define TIDEPOOL_TESTS_CACHESERVICE_ROCKSDB_CHILD_TEST_H_

#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/paths.h"
#include "tests/support/process.h"

namespace tidepool::test {

inline std::unique_ptr<ChildProcess> StartChildTest(const std::string& name, const std::string& directory) {
  return std::make_unique<ChildProcess>(
      std::vector<std::string>{std::filesystem::read_symlink("/proc/self/exe").string(),
                               "--gtest_also_run_disabled_tests", "--gtest_filter=" + name},
      std::map<std::string, std::string>{{"TIDEPOOL_CHILD_DIRECTORY", directory}});
}

// In the child: the directory it was started with.
inline std::string ChildDirectory() { return EnvironmentOr("TIDEPOOL_CHILD_DIRECTORY", ""); }

// In the child: one line to the parent; then it does nothing until it is killed.
[[noreturn]] inline void ReportAndWait(const std::string& report) {
  std::printf("report: %s\n", report.c_str());
  std::fflush(stdout);
  while (true) pause();
}

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_CACHESERVICE_ROCKSDB_CHILD_TEST_H_
