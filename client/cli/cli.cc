#include "client/cli/cli.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/proto_json.h"
#include "security/rpc/channel_flags.h"

ABSL_FLAG(std::string, worker, "", "worker to ask: host:port or unix:PATH; empty: 127.0.0.1:7071");
ABSL_FLAG(std::string, cache, "",
          "cache service to ask: host:port or unix:PATH; several pods separated by commas; empty: 127.0.0.1:7070");
ABSL_FLAG(bool, json, false, "one line of JSON for each result, for scripts");
ABSL_FLAG(absl::Duration, timeout, absl::InfiniteDuration(), "longest time for one answer, such as 30s or 2m");

namespace tidepool::cli {

std::vector<Command> Commands() {
  return {GenerateCommand(), ChatCommand(),       ServeCommand(),    InspectCommand(), AdminCommand(),
          HealthCommand(),   ModelCommand(),      PoliciesCommand(), BenchCommand(),   SizeCommand(),
          DoctorCommand(),   CompletionCommand(), ManCommand()};
}

int Fail(const absl::Status& status) {
  if (Json()) {
    const nlohmann::ordered_json error = {
        {"error", {{"code", absl::StatusCodeToString(status.code())}, {"message", std::string(status.message())}}}};
    std::printf("%s\n", error.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace).c_str());
    std::fflush(stdout);
  }
  std::fprintf(stderr, "tidepool: %s\n", std::string(status.message()).c_str());
  if (absl::IsUnavailable(status)) return kUnreachable;
  return absl::IsInvalidArgument(status) ? kUsage : kFailed;
}

int UsageError(const std::string& message) {
  std::fprintf(stderr, "tidepool: %s\nTry: tidepool --help\n", message.c_str());
  return kUsage;
}

int UsageError(const absl::Status& status) { return UsageError(std::string(status.message())); }

bool Json() { return absl::GetFlag(FLAGS_json); }
std::string WorkerAddress() { return WorkerIsGiven() ? absl::GetFlag(FLAGS_worker) : kDefaultWorkerAddress; }
bool WorkerIsGiven() { return !absl::GetFlag(FLAGS_worker).empty(); }
std::string CacheAddress() { return CacheIsGiven() ? absl::GetFlag(FLAGS_cache) : kDefaultCacheAddress; }
bool CacheIsGiven() { return !absl::GetFlag(FLAGS_cache).empty(); }
absl::Time Deadline() { return absl::Now() + absl::GetFlag(FLAGS_timeout); }
absl::StatusOr<std::shared_ptr<const ChannelSecurity>> ReadSecurity() {
  return ChannelSecurity::Create(ChannelSecurityFromFlags());
}

void PrintJson(const google::protobuf::Message& message) {
  std::printf("%s\n", client::ToJson(message).c_str());
  std::fflush(stdout);
}

}  // namespace tidepool::cli
