// tidepool admin scrub, compact, config: looking after a running cache service.
#include <algorithm>
#include <cstdio>
#include <optional>
#include <string>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "base/byte_size.h"
#include "client/cli/admin_commands.h"

ABSL_FLAG(std::string, rate, "32MiB", "scrub: bytes a second that are read, 64KiB to 64GiB");

namespace tidepool::cli {
namespace {

void PrintFlag(const v1::ConfigFlag& flag) {
  if (Json()) return PrintJson(flag);
  const char* mark = flag.changed() ? "changed" : flag.changeable() ? "changeable" : "";
  std::printf("%-28s %-36s %s\n", absl::StrCat("--", flag.name()).c_str(),
              flag.value().empty() ? "-" : flag.value().c_str(), mark);
}

}  // namespace

int AdminScrub(const AdminTarget& target) {
  const std::optional<uint64_t> rate = ParseByteSize(absl::GetFlag(FLAGS_rate));
  if (!rate.has_value() || *rate == 0) {
    return UsageError(absl::StrCat("--rate: '", absl::GetFlag(FLAGS_rate), "' is not a size such as 32MiB"));
  }
  int worst = kOk;
  for (const std::string& pod : target.pods) {
    PrintPodHeading(target, pod);
    bool damaged = false;
    const absl::Status status = target.Client(pod).Scrub(*rate, [&damaged](const v1::ScrubProgress& progress) {
      damaged = progress.corrupt() + progress.manifests_corrupt() + progress.unreadable() > 0;
      if (Json()) return PrintJson(progress);
      std::printf(
          "read %llu of %llu values, %llu manifests, %s: %llu damaged and dropped, %llu unreadable, %llu "
          "damaged manifests%s\n",
          Number(progress.objects_read()), Number(progress.objects()), Number(progress.manifests_read()),
          FormatByteSize(progress.bytes_read()).c_str(), Number(progress.corrupt()), Number(progress.unreadable()),
          Number(progress.manifests_corrupt()), progress.finished() ? "; finished" : "");
      std::fflush(stdout);
    });
    if (!status.ok()) return FailCache(status);
    if (damaged) worst = kFailed;
  }
  return worst;
}

int AdminCompact(const AdminTarget& target) {
  for (const std::string& pod : target.pods) {
    PrintPodHeading(target, pod);
    const absl::Status status = target.Client(pod).Compact([](const v1::CompactProgress& progress) {
      if (Json()) return PrintJson(progress);
      if (!progress.finished()) return;
      std::printf("files %s, %s before\n", FormatByteSize(progress.used_bytes()).c_str(),
                  FormatByteSize(progress.used_bytes_before()).c_str());
    });
    if (!status.ok()) return FailCache(status);
  }
  return kOk;
}

int AdminConfig(const AdminTarget& target, const Arguments& arguments) {
  for (const std::string& pod : target.pods) {
    AdminClient client = target.Client(pod);
    PrintPodHeading(target, pod);
    if (arguments.empty()) {
      const absl::StatusOr<v1::GetConfigResponse> config = client.Config();
      if (!config.ok()) return FailCache(config.status());
      for (const v1::ConfigFlag& flag : config->flags()) PrintFlag(flag);
      continue;
    }
    const size_t equals = arguments[0].find('=');
    if (equals == std::string::npos) {
      return UsageError(absl::StrCat("admin config: '", arguments[0], "' is not NAME=VALUE"));
    }
    const absl::StatusOr<v1::ConfigFlag> flag =
        client.SetConfig(arguments[0].substr(0, equals), arguments[0].substr(equals + 1));
    if (!flag.ok()) return FailCache(flag.status());
    PrintFlag(*flag);
  }
  return kOk;
}

}  // namespace tidepool::cli
