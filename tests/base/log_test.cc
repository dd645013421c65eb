#include "base/log.h"

#include <gtest/gtest.h>

#include <regex>
#include <string>
#include <thread>
#include <vector>

namespace tidepool {
namespace {

class LogTest : public ::testing::Test {
 protected:
  void SetUp() override { ::testing::internal::CaptureStderr(); }
  void TearDown() override {
    if (capturing_) Written();
    SetLogLevel(LogLevel::kInfo);
  }

  // What was written to stderr since the start of the test. Call it once.
  std::string Written() {
    capturing_ = false;
    return ::testing::internal::GetCapturedStderr();
  }

 private:
  bool capturing_ = true;
};

TEST_F(LogTest, ALineHoldsTimeLevelModuleAndMessage) {
  TP_LOG(Warning, "cache", "dropped ", 3, " blocks");
  const std::string written = Written();
  const std::regex expected(R"(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z W cache: dropped 3 blocks\n)");
  EXPECT_TRUE(std::regex_match(written, expected)) << written;
}

TEST_F(LogTest, LinesBelowTheLevelAreNotWritten) {
  SetLogLevel(LogLevel::kError);
  TP_LOG(Info, "test", "one");
  TP_LOG(Warning, "test", "two");
  TP_LOG(Error, "test", "three");
  const std::string written = Written();
  EXPECT_EQ(written.find("one"), std::string::npos);
  EXPECT_EQ(written.find("two"), std::string::npos);
  EXPECT_NE(written.find("E test: three\n"), std::string::npos) << written;
}

TEST_F(LogTest, LinesOfSeveralThreadsDoNotMix) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([] {
      for (int i = 0; i < 100; ++i) TP_LOG(Info, "test", std::string(50, 'x'));
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::string written = Written();
  const std::string tail = " I test: " + std::string(50, 'x');
  size_t lines = 0;
  for (size_t start = 0; start < written.size(); ++lines) {
    const size_t end = written.find('\n', start);
    ASSERT_NE(end, std::string::npos);
    EXPECT_EQ(written.substr(start + 24, end - start - 24), tail);  // 24: length of the time
    start = end + 1;
  }
  EXPECT_EQ(lines, 400u);
}

}  // namespace
}  // namespace tidepool
