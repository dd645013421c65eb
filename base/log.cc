#include "base/log.h"

#include <atomic>
#include <cstdio>
#include <string>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace tidepool {
namespace {

std::atomic<LogLevel> minimum_level{LogLevel::kInfo};

char Letter(LogLevel level) {
  switch (level) {
    case LogLevel::kInfo: return 'I';
    case LogLevel::kWarning: return 'W';
    case LogLevel::kError: return 'E';
  }
  return '?';
}

}  // namespace

std::optional<LogLevel> ParseLogLevel(std::string_view name) {
  if (name == "info") return LogLevel::kInfo;
  if (name == "warning") return LogLevel::kWarning;
  if (name == "error") return LogLevel::kError;
  return std::nullopt;
}

void SetLogLevel(LogLevel level) { minimum_level = level; }

void WriteLog(LogLevel level, std::string_view module, std::string_view message) {
  if (level < minimum_level.load(std::memory_order_relaxed)) return;
  const std::string line = absl::StrCat(absl::FormatTime("%Y-%m-%dT%H:%M:%E3SZ", absl::Now(), absl::UTCTimeZone()), " ",
                                        std::string(1, Letter(level)), " ", std::string(module), ": ",
                                        std::string(message), "\n");  // the packaged StrCat takes no std::string_view
  std::fwrite(line.data(), 1, line.size(), stderr);  // one call, so lines of several threads do not mix
}

}  // namespace tidepool
