// tidepool admin pin, unpin, pins, quota: what stays, and how much of it is whose.
#include <algorithm>
#include <cstdio>
#include <optional>
#include <string>
#include <utility>

#include "absl/flags/declare.h"
#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "base/byte_size.h"
#include "base/status_macros.h"
#include "client/cli/admin_commands.h"

ABSL_FLAG(absl::Duration, ttl, absl::ZeroDuration(), "pin: how long, 1s to 8760h; 0: until unpin");
ABSL_FLAG(std::string, name, "", "pin, unpin: of a prefix, in place of a session");
ABSL_FLAG(std::string, memory_quota, "", "quota: of the tenant in memory, such as 4GiB; 0: none; empty: as it is");
ABSL_FLAG(
    std::string, disk_quota, "",
    "quota: of the disk, 16MiB or more, which the others do not have then; 0: none, and what he has of his own is "
    "gone; empty: as it is");
ABSL_FLAG(std::string, pinned_quota, "", "quota: of what he may pin; 0: a quarter of the memory tier; empty: as it is");

namespace tidepool::cli {
namespace {

// Which pin a command is about. InvalidArgument naming what is missing.
template <typename Request>
absl::Status NamePin(const std::string& session, Request& request) {
  const std::string name = absl::GetFlag(FLAGS_name);
  if (session.empty() == name.empty()) {
    return absl::InvalidArgumentError("give a session's ID, or --name of a prefix, and not both");
  }
  request.set_session_id(session);
  request.set_name(name);
  return absl::OkStatus();
}

// The keys of a session, from the first pod that has its manifest: its blocks are spread over all of them.
absl::StatusOr<v1::SessionDescription> DescribeSomewhere(const AdminTarget& target, const std::string& session) {
  absl::Status first;
  for (const std::string& pod : target.pods) {
    absl::StatusOr<v1::SessionDescription> description = target.Client(pod).Describe(session, /*with_keys=*/true);
    if (description.ok()) return description;
    if (first.ok() || absl::IsNotFound(first)) first = description.status();
  }
  return first;
}

absl::StatusOr<v1::PinRequest> PinRequestOf(const AdminTarget& target, const std::string& session) {
  v1::PinRequest request;
  TP_RETURN_IF_ERROR(NamePin(session, request));
  const absl::Duration ttl = absl::GetFlag(FLAGS_ttl);
  if (ttl != absl::ZeroDuration() && (ttl < absl::Seconds(1) || ttl > absl::Hours(8760))) {
    return absl::InvalidArgumentError(
        absl::StrCat("--ttl: ", absl::FormatDuration(ttl), " is not 0 or in 1s to 8760h"));
  }
  request.set_ttl_seconds(absl::ToInt64Seconds(ttl));
  if (session.empty()) {
    TP_ASSIGN_OR_RETURN(v1::ListBlockKeysResponse keys, PromptKeys(target));
    if (keys.keys().empty()) {
      return absl::InvalidArgumentError(absl::StrCat("--prompt: ", keys.token_ids_size(), " tokens, a block has ",
                                                     keys.block_tokens(), ": there is nothing to pin"));
    }
    request.set_tenant(keys.tenant());
    *request.mutable_keys() = keys.keys();
  } else if (target.pods.size() > 1) {
    TP_ASSIGN_OR_RETURN(v1::SessionDescription description, DescribeSomewhere(target, session));
    *request.mutable_keys() = description.block_keys();
  }
  return request;
}

void PrintPin(const std::string& pod, const v1::PinDescription& pin) {
  std::printf("%-24s %-24s %-12s %8lld %10s %-20s\n", pod.c_str(),
              (pin.session_id().empty() ? absl::StrCat("prefix ", pin.name()) : pin.session_id()).c_str(),
              pin.tenant().c_str(), static_cast<long long>(pin.blocks() - pin.missing_blocks()),
              FormatByteSize(pin.bytes()).c_str(),
              pin.expires_unix_ms() == 0 ? "-" : When(pin.expires_unix_ms()).c_str());
}

void PrintPinHeading() {
  std::printf("%-24s %-24s %-12s %8s %10s %-20s\n", "pod", "session or prefix", "tenant", "blocks", "bytes", "until");
}

std::string QuotaText(uint64_t bytes) { return bytes == 0 ? "-" : FormatByteSize(bytes); }

// Empty text: `bytes` stays.
absl::Status ReadQuota(const char* flag, const std::string& text, uint64_t* bytes, bool* changed) {
  if (text.empty()) return absl::OkStatus();
  const std::optional<uint64_t> given = ParseByteSize(text);
  if (!given.has_value()) {
    return absl::InvalidArgumentError(absl::StrCat(flag, ": '", text, "' is not a size such as 4GiB, or 0"));
  }
  *bytes = *given;
  *changed = true;
  return absl::OkStatus();
}

// What is asked for, over what is there.
absl::StatusOr<bool> ChangeQuota(v1::TenantQuota& quota) {
  uint64_t memory = quota.memory_bytes(), disk = quota.disk_bytes(), pinned = quota.pinned_bytes();
  bool changed = false;
  TP_RETURN_IF_ERROR(ReadQuota("--memory-quota", absl::GetFlag(FLAGS_memory_quota), &memory, &changed));
  TP_RETURN_IF_ERROR(ReadQuota("--disk-quota", absl::GetFlag(FLAGS_disk_quota), &disk, &changed));
  TP_RETURN_IF_ERROR(ReadQuota("--pinned-quota", absl::GetFlag(FLAGS_pinned_quota), &pinned, &changed));
  quota.set_memory_bytes(memory);
  quota.set_disk_bytes(disk);
  quota.set_pinned_bytes(pinned);
  return changed;
}

void PrintQuotas(const v1::GetStatsResponse& stats, const std::string& tenant) {
  for (const v1::TenantStats& one : stats.tenants()) {
    if (!tenant.empty() && one.tenant() != tenant) continue;
    if (Json()) {
      PrintJson(one);
      continue;
    }
    std::printf("%-20s %10s %10s %10s %10s %10s %10s %9llu\n",
                one.tenant().empty() ? "(not known)" : one.tenant().c_str(), FormatByteSize(one.memory_bytes()).c_str(),
                QuotaText(one.quota().memory_bytes()).c_str(), FormatByteSize(one.disk_bytes()).c_str(),
                QuotaText(one.quota().disk_bytes()).c_str(), FormatByteSize(one.pinned_bytes()).c_str(),
                QuotaText(one.quota().pinned_bytes()).c_str(), Number(one.quota_evictions()));
  }
}

}  // namespace

int AdminPin(const AdminTarget& target, const std::string& session) {
  const absl::StatusOr<v1::PinRequest> request = PinRequestOf(target, session);
  if (!request.ok()) return FailCache(request.status());
  // Of several pods each has a part of the blocks, perhaps none.
  absl::Status absent;
  bool any = false;
  for (const std::string& pod : target.pods) {
    const absl::StatusOr<v1::PinDescription> pin = target.Client(pod).Pin(*request);
    if (absl::IsNotFound(pin.status())) {
      absent = pin.status();
      continue;
    }
    if (!pin.ok()) return FailCache(pin.status());
    if (Json()) {
      PrintJson(*pin);
    } else {
      if (!any) PrintPinHeading();
      PrintPin(pod, *pin);
    }
    any = true;
  }
  return any ? kOk : FailCache(absent);
}

int AdminUnpin(const AdminTarget& target, const std::string& session) {
  v1::UnpinRequest request;
  if (const absl::Status named = NamePin(session, request); !named.ok()) return UsageError(named);
  absl::Status absent;
  bool any = false;
  for (const std::string& pod : target.pods) {
    const absl::Status status = target.Client(pod).Unpin(request);
    if (absl::IsNotFound(status)) {
      absent = status;
      continue;
    }
    if (!status.ok()) return FailCache(status);
    any = true;
  }
  if (!any) return FailCache(absent);
  if (Json()) {
    PrintJson(v1::UnpinResponse());
  } else {
    std::printf("unpinned %s\n", (session + request.name()).c_str());
  }
  return kOk;
}

int AdminPins(const AdminTarget& target) {
  if (!Json()) PrintPinHeading();
  for (const std::string& pod : target.pods) {
    const absl::StatusOr<v1::ListPinsResponse> pins = target.Client(pod).Pins();
    if (!pins.ok()) return FailCache(pins.status());
    for (const v1::PinDescription& pin : pins->pins()) Json() ? PrintJson(pin) : PrintPin(pod, pin);
  }
  return kOk;
}

int AdminQuota(const AdminTarget& given, const Arguments& arguments) {
  AdminTarget target = given;
  if (!arguments.empty()) target.tenant = arguments[0];
  for (const std::string& pod : target.pods) {
    AdminClient client = target.Client(pod);
    absl::StatusOr<v1::GetStatsResponse> stats = client.Stats();
    if (!stats.ok()) return FailCache(stats.status());
    v1::TenantQuota quota;
    for (const v1::TenantStats& one : stats->tenants()) {
      if (one.tenant() == target.tenant) quota = one.quota();
    }
    const absl::StatusOr<bool> changed = ChangeQuota(quota);
    if (!changed.ok()) return UsageError(changed.status());
    if (*changed) {
      if (target.tenant.empty()) return UsageError("admin quota: the tenant is missing");
      if (const absl::Status set = client.SetQuota(quota); !set.ok()) return FailCache(set);
      stats = client.Stats();
      if (!stats.ok()) return FailCache(stats.status());
    }
    PrintPodHeading(target, pod);
    if (!Json()) {
      std::printf("%-20s %10s %10s %10s %10s %10s %10s %9s\n", "tenant", "memory", "quota", "disk", "quota", "pinned",
                  "quota", "evicted");
    }
    PrintQuotas(*stats, target.tenant);
  }
  return kOk;
}

}  // namespace tidepool::cli
