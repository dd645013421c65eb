#include "cacheservice/rpc/runtime_config.h"

#include <optional>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/byte_size.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace tidepool {
namespace {

constexpr std::string_view kMemoryBytes = "memory-bytes";
constexpr std::string_view kDiskBytes = "disk-bytes";
constexpr std::string_view kLogLevel = "log-level";

bool IsChangeable(std::string_view name) { return name == kMemoryBytes || name == kDiskBytes || name == kLogLevel; }

absl::StatusOr<uint64_t> BytesFrom(std::string_view name, const std::string& value) {
  const std::optional<uint64_t> bytes = ParseByteSize(value);
  if (bytes.has_value()) return *bytes;
  return absl::InvalidArgumentError(
      absl::StrCat("--", std::string(name), ": '", absl::CHexEscape(value), "' is not a size such as 64MiB"));
}

}  // namespace

std::string WithoutPassword(const std::string& value) {
  const size_t scheme = value.find("://"), at = value.rfind('@');
  if (scheme == std::string::npos || at == std::string::npos || at < scheme) return value;
  return absl::StrCat(value.substr(0, scheme + 3), "***", value.substr(at));
}

RuntimeConfig::RuntimeConfig(TieredStore* blocks, std::vector<FlagFacts> flags) : blocks_(blocks) {
  MutexLock lock(&mutex_);
  for (FlagFacts& flag : flags) {
    flag.value = WithoutPassword(flag.value);
    const bool changeable = IsChangeable(flag.name);
    entries_.push_back({.flag = std::move(flag), .changeable = changeable});
  }
}

std::vector<RuntimeConfig::Entry> RuntimeConfig::Entries() const {
  MutexLock lock(&mutex_);
  return entries_;
}

absl::StatusOr<RuntimeConfig::Entry> RuntimeConfig::Set(std::string_view given, const std::string& value) {
  const std::string name = absl::StrReplaceAll(std::string(given), {{"_", "-"}});
  MutexLock lock(&mutex_);
  Entry* entry = nullptr;
  for (Entry& one : entries_) {
    if (one.flag.name == name) entry = &one;
  }
  if (entry == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("name: '", absl::CHexEscape(name), "' is not a flag of this process"));
  }
  if (!entry->changeable) {
    return absl::FailedPreconditionError(
        absl::StrCat("--", name,
                     ": can be set when the process starts only; while it runs: --memory-bytes, "
                     "--disk-bytes, --log-level"));
  }
  if (name == kMemoryBytes) {
    TP_ASSIGN_OR_RETURN(const uint64_t bytes, BytesFrom(name, value));
    TP_RETURN_IF_ERROR(blocks_->SetMemoryBytes(bytes));
  } else if (name == kDiskBytes) {
    TP_ASSIGN_OR_RETURN(const uint64_t bytes, BytesFrom(name, value));
    TP_RETURN_IF_ERROR(blocks_->SetDiskBytes(bytes));
  } else {
    const std::optional<LogLevel> level = ParseLogLevel(value);
    if (!level.has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--", name, ": '", absl::CHexEscape(value), "' is not info, warning or error"));
    }
    SetLogLevel(*level);
  }
  entry->flag.value = value;
  entry->changed = true;
  return *entry;
}

}  // namespace tidepool
