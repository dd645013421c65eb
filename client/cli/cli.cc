#include "client/cli/cli.h"

#include <cstdio>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/byte_size.h"
#include "google/protobuf/util/json_util.h"

ABSL_FLAG(std::string, worker, "127.0.0.1:7071", "worker to ask: host:port or unix:PATH");
ABSL_FLAG(std::string, cache, "127.0.0.1:7070", "cache service to ask: host:port or unix:PATH");
ABSL_FLAG(bool, json, false, "one line of JSON for each result, for scripts");

namespace tidepool::cli {

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "tidepool: %s\n", std::string(status.message()).c_str());
  if (absl::IsUnavailable(status)) return kUnreachable;
  return absl::IsInvalidArgument(status) ? kUsage : kFailed;
}

int UsageError(const std::string& message) {
  std::fprintf(stderr, "tidepool: %s\nTry: tidepool --help\n", message.c_str());
  return kUsage;
}

bool Json() { return absl::GetFlag(FLAGS_json); }
std::string WorkerAddress() { return absl::GetFlag(FLAGS_worker); }
std::string CacheAddress() { return absl::GetFlag(FLAGS_cache); }

void PrintJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = true;
  std::string json;
  if (!google::protobuf::util::MessageToJsonString(message, &json, options).ok()) json = "{}";
  std::printf("%s\n", json.c_str());
  std::fflush(stdout);
}

std::string Summary(const v1::Usage& usage) {
  const double decode_seconds = usage.total_seconds() - usage.time_to_first_token_seconds();
  std::string line = absl::StrFormat(
      "%d prompt tokens (%d not computed again), %d generated, first after %.2f s, %.1f tokens/s; on the device %s of "
      "%s (%.0f %%)",
      usage.prompt_tokens(), usage.cached_prompt_tokens(), usage.generated_tokens(),
      usage.time_to_first_token_seconds(),
      usage.generated_tokens() > 1 && decode_seconds > 0
          ? (static_cast<double>(usage.generated_tokens()) - 1) / decode_seconds
          : 0.0,
      FormatByteSize(usage.resident_kv_bytes()), FormatByteSize(usage.full_kv_bytes()),
      usage.full_kv_bytes() > 0
          ? 100.0 * static_cast<double>(usage.resident_kv_bytes()) / static_cast<double>(usage.full_kv_bytes())
          : 0.0);
  if (usage.evicted_rows() > 0) absl::StrAppend(&line, "; rows evicted ", usage.evicted_rows());
  if (usage.merged_rows() > 0) absl::StrAppend(&line, ", merged ", usage.merged_rows());
  if (usage.recalled_rows() > 0) absl::StrAppend(&line, ", recalled ", usage.recalled_rows());
  if (usage.late_rows() > 0) absl::StrAppend(&line, ", late ", usage.late_rows());
  if (usage.degraded()) absl::StrAppend(&line, "; DEGRADED: ", usage.lost_rows(), " rows could not be recalled");
  return line;
}

}  // namespace tidepool::cli
