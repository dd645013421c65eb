#include "cacheservice/tiers/cache_options.h"

#include <algorithm>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "cacheservice/tiers/memory_policy.h"

namespace tidepool {
namespace {

constexpr absl::Duration kMostDiskTtl = absl::Hours(87'600);
constexpr uint64_t kMaxDefaultDemotionQueueBytes = 64 * CacheOptions::kMiB;

absl::Status CheckRange(const char* field, uint64_t value, uint64_t least, uint64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, " ", value, " is not in ", least, " to ", most));
}

}  // namespace

absl::Status CacheOptions::Validate() const {
  if (data_dir.empty()) return absl::InvalidArgumentError("data_dir is empty: name a directory");
  if (data_dir.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError("data_dir holds a zero byte: name a directory");
  }
  TP_RETURN_IF_ERROR(CheckRange("memory_bytes", memory_bytes, kMiB / 4, 16 * kTiB));
  if (!IsMemoryPolicy(memory_policy)) {
    return absl::InvalidArgumentError(
        absl::StrCat("memory_policy '", memory_policy, "' is not one of ", kMemoryPolicies));
  }
  TP_RETURN_IF_ERROR(CheckRange("disk_bytes", disk_bytes, 16 * kMiB, 1024 * kTiB));
  if (disk_ttl != absl::ZeroDuration() && (disk_ttl < absl::Seconds(1) || disk_ttl > kMostDiskTtl)) {
    return absl::InvalidArgumentError(
        absl::StrCat("disk_ttl ", absl::FormatDuration(disk_ttl), " is not 0 or in 1s to 87600h"));
  }
  TP_RETURN_IF_ERROR(CheckRange("manifest_bytes", manifest_bytes, kMiB, 16 * kTiB));
  if (demotion_queue_bytes != 0) {
    TP_RETURN_IF_ERROR(
        CheckRange("demotion_queue_bytes (0 for the default)", demotion_queue_bytes, 256 << 10, memory_bytes / 2));
  }
  TP_RETURN_IF_ERROR(CheckRange("write_behind_bytes", write_behind_bytes, 256 << 10, 16 * kGiB));
  if (recall_threads < 1 || recall_threads > 64) {
    return absl::InvalidArgumentError(absl::StrCat("recall_threads ", recall_threads, " is not in 1 to 64"));
  }
  if (slow_tier_retry < absl::Milliseconds(1) || slow_tier_retry > absl::Hours(1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("slow_tier_retry ", absl::FormatDuration(slow_tier_retry), " is not in 1ms to 1h"));
  }
  return remote.Validate();
}

uint64_t CacheOptions::EffectiveDemotionQueueBytes() const {
  if (demotion_queue_bytes != 0) return demotion_queue_bytes;
  // Room for a few values however small the tier is.
  return std::clamp(memory_bytes / 8, std::min<uint64_t>(256 << 10, memory_bytes / 2), kMaxDefaultDemotionQueueBytes);
}

}  // namespace tidepool
