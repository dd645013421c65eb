#include "cacheservice/rpc/pod_name.h"

#include <algorithm>
#include <optional>
#include <random>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "cacheservice/rocksdb/database.h"
#include "cacheservice/wire/messages.h"

namespace tidepool {
namespace {

constexpr char kNameKey[] = "pod.name";

}  // namespace

absl::StatusOr<std::string> PodName(const std::string& given, Database* database) {
  if (!given.empty()) {
    const bool visible = std::all_of(given.begin(), given.end(), absl::ascii_isgraph);
    if (visible && given.size() <= kMaxPodNameBytes) return given;
    return absl::InvalidArgumentError(
        absl::StrCat("pod_name: '", given, "' is not 1 to ", kMaxPodNameBytes, " visible ASCII characters"));
  }
  TP_ASSIGN_OR_RETURN(std::optional<std::string> name, database->Get(Family::kMeta, kNameKey));
  if (name.has_value()) return *std::move(name);
  std::random_device random;
  const std::string made =
      absl::StrCat("pod-", absl::Hex(random(), absl::kZeroPad8), absl::Hex(random(), absl::kZeroPad8));
  const Mutation mutations[] = {{.family = Family::kMeta, .key = kNameKey, .value = made}};
  TP_RETURN_IF_ERROR(database->Write(mutations, Durability::kSynced));
  return made;
}

}  // namespace tidepool
