// Structured lines on stderr: time, level, where, message. TP_LOG(Info, "cache", "loaded ", n, " blocks"). Thread-safe.
// Debian 12's Abseil has no absl/log. Logs are written at the edges (rpc, engine, tiers); policies and kernels say
// nothing.
#ifndef TIDEPOOL_BASE_LOG_H_
#define TIDEPOOL_BASE_LOG_H_

#include <optional>
#include <string_view>

#include "absl/strings/str_cat.h"

namespace tidepool {

enum class LogLevel { kInfo = 0, kWarning = 1, kError = 2 };

// info, warning or error.
std::optional<LogLevel> ParseLogLevel(std::string_view name);
// Lines below this level are not written. Default kInfo.
void SetLogLevel(LogLevel level);
void WriteLog(LogLevel level, std::string_view module, std::string_view message);

}  // namespace tidepool

#define TP_LOG(level, module, ...) \
  ::tidepool::WriteLog(::tidepool::LogLevel::k##level, module, ::absl::StrCat(__VA_ARGS__))

#endif  // TIDEPOOL_BASE_LOG_H_
