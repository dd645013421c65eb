// tidepool doctor: whether a machine, and what runs on it, is in order.
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "absl/flags/declare.h"
#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/byte_size.h"
#include "client/cli/cli.h"
#include "client/cli/finding.h"
#include "security/rpc/channel_flags.h"
#include "worker/rpc/worker_flags.h"

ABSL_FLAG(std::vector<std::string>, ports, {}, "doctor: addresses that are to be free, HOST:PORT,...");
ABSL_DECLARE_FLAG(std::string, data_dir);
ABSL_DECLARE_FLAG(std::string, disk_bytes);
ABSL_DECLARE_FLAG(std::string, memory_bytes);

namespace tidepool::cli {
namespace {

const char* NameOf(Finding::Grade grade) {
  switch (grade) {
    case Finding::Grade::kOk: return "ok";
    case Finding::Grade::kWarning: return "warning";
    case Finding::Grade::kWrong: return "WRONG";
  }
  return "?";
}

void Print(const Finding& finding) {
  if (Json()) {
    const nlohmann::ordered_json out = {
        {"grade", finding.grade == Finding::Grade::kWrong ? "wrong" : NameOf(finding.grade)},
        {"what", finding.what},
        {"found", finding.found},
        {"advice", finding.advice}};
    std::printf("%s\n", out.dump(-1, ' ', true, nlohmann::ordered_json::error_handler_t::replace).c_str());
    return;
  }
  std::printf("%-8s %s: %s\n", NameOf(finding.grade), finding.what.c_str(), finding.found.c_str());
  if (!finding.advice.empty()) std::printf("         -> %s\n", finding.advice.c_str());
}

int Doctor(const Arguments& arguments) {
  if (!arguments.empty()) return UsageError(absl::StrCat("doctor: unexpected argument '", arguments[0], "'"));
  MachineQuestion question;
  const ChannelSecurityOptions channel = ChannelSecurityFromFlags();
  question.model = ModelFlag();
  question.data_dir = absl::GetFlag(FLAGS_data_dir);
  question.listen = absl::GetFlag(FLAGS_ports);
  question.tls_cert = channel.tls_cert;
  question.tls_key = channel.tls_key;
  question.tls_ca = channel.tls_ca;
  const auto size = [](const char* flag, const std::string& text, uint64_t* bytes) {
    const std::optional<uint64_t> parsed = ParseByteSize(text);
    if (!parsed.has_value()) return absl::InvalidArgumentError(absl::StrCat(flag, ": '", text, "' is not a size"));
    *bytes = *parsed;
    return absl::OkStatus();
  };
  absl::Status read;
  if (!question.data_dir.empty()) {
    read.Update(size("--disk-bytes", absl::GetFlag(FLAGS_disk_bytes), &question.disk_bytes));
    read.Update(size("--memory-bytes", absl::GetFlag(FLAGS_memory_bytes), &question.memory_bytes));
  }
  if (!read.ok()) return UsageError(read);
  Findings findings;
  CheckMachine(question, &findings);
  std::vector<std::string> workers, pods;
  if (WorkerIsGiven()) workers = absl::StrSplit(WorkerAddress(), ',');
  if (CacheIsGiven()) pods = absl::StrSplit(CacheAddress(), ',');
  if (!workers.empty() || !pods.empty()) {
    const auto security = ReadSecurity();
    if (!security.ok()) return UsageError(security.status());
    CheckRunning(workers, pods, *security, &findings);
  }
  int worst = kOk;
  for (const Finding& finding : findings) {
    Print(finding);
    if (finding.grade == Finding::Grade::kWrong) worst = kFailed;
  }
  return worst;
}

}  // namespace

Command DoctorCommand() {
  return {
      .name = "doctor",
      .arguments = "[flags]",
      .summary = "whether a machine and a running system are in order",
      .details =
          "Looks at the machine (processor, cores, memory, huge pages, descriptors), at what is given (model file,\n"
          "room for a cache's data directory, ports to be free, certificates) and at workers and cache pods that\n"
          "run: health, versions, equal models, disks, clocks, what they say of one another. A line for each, with\n"
          "what to do. Exit code 1 when something is wrong; warnings do not count.",
      .flags = {"client/cli/doctor.cc", "--worker", "--cache", "--model", "--data-dir", "--disk-bytes",
                "--memory-bytes", "--json", kChannelFlags},
      .run = Doctor};
}

}  // namespace tidepool::cli
