// tidepool size: how much memory and disk a number of sessions takes.
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "base/byte_size.h"
#include "client/cli/cli.h"
#include "client/cli/compression_flags.h"
#include "client/cli/size_plan.h"
#include "worker/backend/backend.h"
#include "worker/model/model.h"
#include "worker/rpc/convert_compression.h"
#include "worker/rpc/worker_flags.h"

ABSL_FLAG(int64_t, context, 0, "size: tokens of a context, prompt and answer; 0: what the model's holds");
ABSL_FLAG(int64_t, answer, 512, "size: tokens of the context that are the answer");
ABSL_FLAG(int64_t, running, 1, "size: sequences that one worker computes at a time, 1 to 64");
ABSL_FLAG(int64_t, sessions, 1, "size: that the cache keeps, 1 to 1000000");

namespace tidepool::cli {
namespace {

void PrintLine(const char* what, uint64_t one, uint64_t all) {
  std::printf("%-34s %12s %12s\n", what, FormatByteSize(one).c_str(), FormatByteSize(all).c_str());
}

void PrintText(const Model& model, const SizeQuestion& question, const SizePlan& plan) {
  const auto running = static_cast<uint64_t>(question.running), sessions = static_cast<uint64_t>(question.sessions);
  std::printf("%s: %s of keys and values a token\n", model.config().name.c_str(),
              FormatByteSize(plan.token_bytes).c_str());
  std::printf("a context of %lld tokens, %lld of them the answer: %s uncompressed, %llu blocks; preset %s\n\n",
              static_cast<long long>(question.context_tokens), static_cast<long long>(question.answer_tokens),
              FormatByteSize(plan.full_bytes).c_str(), static_cast<unsigned long long>(plan.blocks),
              question.compression.preset.c_str());
  std::printf("%-34s %12s %12s\n", "worker", "each", absl::StrCat(running, " running").c_str());
  PrintLine("device, reserved", plan.reserved_bytes, running * plan.reserved_bytes);
  PrintLine("device, most while answering", plan.answering_bytes, running * plan.answering_bytes);
  if (plan.index_bytes > 0) {
    PrintLine(plan.index_on_device ? "recall index, in the device budget" : "host, recall index", plan.index_bytes,
              running * plan.index_bytes);
    PrintLine("host, rows kept ready", plan.staged_bytes, running * plan.staged_bytes);
  }
  PrintLine("weights in the file", model.tensor_bytes(), model.tensor_bytes());
  std::printf("\n%-34s %12s %12s\n", "cache", "each", absl::StrCat(sessions, " sessions").c_str());
  PrintLine("memory", plan.memory_bytes, sessions * plan.memory_bytes);
  PrintLine("disk", plan.disk_bytes, sessions * plan.disk_bytes);
  PrintLine("remote tier", plan.remote_bytes, sessions * plan.remote_bytes);
  std::printf(
      "\ntidepool-worker --device-kv-bytes=%lluMiB\n"
      "tidepool-cache  --memory-bytes=%lluMiB (all sessions in memory) --disk-bytes=%lluMiB (a quarter more on the "
      "volume)\n",
      static_cast<unsigned long long>((plan.device_kv_bytes + (1 << 20) - 1) >> 20),
      static_cast<unsigned long long>(plan.memory_flag_bytes >> 20),
      static_cast<unsigned long long>(plan.disk_flag_bytes >> 20));
}

void PrintAsJson(const SizeQuestion& question, const SizePlan& plan) {
  const nlohmann::ordered_json out = {{"context_tokens", question.context_tokens},
                                      {"running", question.running},
                                      {"sessions", question.sessions},
                                      {"preset", question.compression.preset},
                                      {"token_bytes", plan.token_bytes},
                                      {"full_bytes", plan.full_bytes},
                                      {"reserved_bytes", plan.reserved_bytes},
                                      {"answering_bytes", plan.answering_bytes},
                                      {"index_bytes", plan.index_bytes},
                                      {"index_on_device", plan.index_on_device},
                                      {"staged_bytes", plan.staged_bytes},
                                      {"blocks", plan.blocks},
                                      {"memory_bytes", plan.memory_bytes},
                                      {"disk_bytes", plan.disk_bytes},
                                      {"remote_bytes", plan.remote_bytes},
                                      {"device_kv_bytes", plan.device_kv_bytes},
                                      {"host_bytes", plan.host_bytes},
                                      {"memory_flag_bytes", plan.memory_flag_bytes},
                                      {"disk_flag_bytes", plan.disk_flag_bytes}};
  std::printf("%s\n", out.dump().c_str());
}

int Size(const Arguments& arguments) {
  if (!arguments.empty()) return UsageError(absl::StrCat("size: unexpected argument '", arguments[0], "'"));
  if (ModelFlag().empty()) return UsageError("--model is required");
  const absl::StatusOr<EngineOptions> options = EngineOptionsFromFlags();
  if (!options.ok()) return UsageError(options.status());
  v1::CompressionParams params;
  if (const absl::Status read = ReadCompressionFlags(params); !read.ok()) return UsageError(read);
  const absl::StatusOr<CompressionSpec> compression = CompressionFrom(params, /*for_session=*/false);
  if (!compression.ok()) return UsageError(compression.status());
  const absl::StatusOr<std::shared_ptr<const Model>> model = Model::Load(ModelFlag());
  if (!model.ok()) {
    Fail(model.status());
    return kFailed;
  }
  SizeQuestion question;
  question.layout = LayoutOf(**model, options->kv_type);
  question.compression = *compression;
  question.context_tokens = absl::GetFlag(FLAGS_context);
  if (question.context_tokens == 0) question.context_tokens = (*model)->config().context_tokens;
  question.answer_tokens = absl::GetFlag(FLAGS_answer);
  question.running = absl::GetFlag(FLAGS_running);
  question.sessions = absl::GetFlag(FLAGS_sessions);
  const absl::StatusOr<SizePlan> plan = PlanSize(question);
  if (!plan.ok()) return UsageError(plan.status());
  if (Json()) {
    PrintAsJson(question, *plan);
  } else {
    PrintText(**model, question, *plan);
  }
  return kOk;
}

}  // namespace

Command SizeCommand() {
  return {
      .name = "size",
      .arguments = "--model FILE.gguf --context N --sessions N [flags]",
      .summary = "what memory and disk so many sessions take",
      .details =
          "By the functions that worker and cache count with: slot pages that a request reserves, recall index and\n"
          "rows kept ready, blocks in memory, on disk and in the remote tier, and the flags that give so much. The\n"
          "compression flags are those of tidepool generate. Not counted: weights (about the file's\n"
          "size), block values on their way out (64 MiB), session manifests.",
      .flags = {"client/cli/size.cc", "client/cli/compression_flags.cc", "--model", "--kv-type", "--json"},
      .run = Size};
}

}  // namespace tidepool::cli
