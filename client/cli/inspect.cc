// tidepool inspect: a page that shows which tokens every layer and kv head kept, merged, evicted and recalled.
#include <stdlib.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/flags/declare.h"
#include "absl/flags/flag.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/byte_size.h"
#include "base/status_macros.h"
#include "cacheservice/embedded/embedded_cache.h"
#include "client/cli/cli.h"
#include "client/cli/inspect_data.h"
#include "client/cli/inspect_page.h"
#include "client/cli/inspect_run.h"
#include "client/utf8.h"
#include "worker/backend/backend.h"
#include "worker/rpc/worker_flags.h"

ABSL_FLAG(
    std::vector<std::string>, policy, {},
    "preset to look at, with --budget and --recall or with its own: NAME[@BUDGET][+RECALL], such as snapkv@0.1 or "
    "d2o@256+sync. Up to 4, separated by commas or given again");
ABSL_FLAG(std::string, question, "", "asked as the next turn, when the policy has decided about the prompt");
ABSL_FLAG(std::string, out, "retention.html", "file of the page; empty: none is written");

ABSL_DECLARE_FLAG(std::string, prompt_file);
ABSL_DECLARE_FLAG(bool, chat_template);
ABSL_DECLARE_FLAG(std::string, preset);
ABSL_DECLARE_FLAG(std::string, budget);
ABSL_DECLARE_FLAG(std::string, recall);

namespace tidepool::cli {
namespace {

constexpr size_t kMostPolicies = 4;  // what a reader can compare

// The embedded cache's files, gone at the end.
class TemporaryDirectory {
 public:
  static absl::StatusOr<std::unique_ptr<TemporaryDirectory>> Make() {
    std::error_code error;
    const std::filesystem::path parent = std::filesystem::temp_directory_path(error);
    std::string path = (parent / "tidepool-inspect-XXXXXX").string();
    if (error || mkdtemp(path.data()) == nullptr) {
      return absl::FailedPreconditionError(absl::StrCat("no directory for temporary files can be made: ", path));
    }
    return std::unique_ptr<TemporaryDirectory>(new TemporaryDirectory(std::move(path)));
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::string& path() const { return path_; }

 private:
  explicit TemporaryDirectory(std::string path) : path_(std::move(path)) {}
  const std::string path_;
};

absl::StatusOr<std::string> ReadText(const std::string& file) {
  std::string text;
  if (file.empty()) return absl::InvalidArgumentError("--prompt-file is required");
  if (file == "-") {
    text.assign(std::istreambuf_iterator<char>(std::cin), {});
  } else {
    std::ifstream in(file, std::ios::binary);
    text.assign(std::istreambuf_iterator<char>(in), {});
    if (!in) return absl::InvalidArgumentError(absl::StrCat("--prompt-file: cannot read ", file));
  }
  if (text.empty()) return absl::InvalidArgumentError(absl::StrCat("--prompt-file: ", file, " is empty"));
  if (const size_t valid = client::ValidUtf8Prefix(text); valid != text.size()) {
    return absl::InvalidArgumentError(absl::StrCat("--prompt-file: ", file, " is not UTF-8 at byte ", valid));
  }
  return text;
}

// NAME[@BUDGET][+RECALL] over what the flags say. The generation flags are read once for each policy, so whatever they
// can say counts for all.
absl::StatusOr<InspectedPolicy> ReadPolicy(const std::string& text, const std::string& budget,
                                           const std::string& recall, GenerationFlags* flags) {
  const size_t plus = text.find('+'), at = text.substr(0, plus).find('@');
  const std::string name = text.substr(0, std::min(plus, at));
  const bool full = name == "full";
  if (name.empty()) return absl::InvalidArgumentError(absl::StrCat("--policy: '", text, "' has no name"));
  absl::SetFlag(&FLAGS_preset, name);
  absl::SetFlag(&FLAGS_budget, at == std::string::npos ? budget : text.substr(at + 1, plus - at - 1));
  absl::SetFlag(&FLAGS_recall, plus == std::string::npos ? (full ? "off" : recall) : text.substr(plus + 1));
  if (absl::Status read = ReadGenerationFlags(flags); !read.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("--policy=", text, ": ", read.message()));
  }
  return InspectedPolicy{text, flags->compression};
}

absl::StatusOr<std::vector<InspectedPolicy>> ReadPolicies(GenerationFlags* flags) {
  const std::vector<std::string> names = absl::GetFlag(FLAGS_policy);
  if (!absl::GetFlag(FLAGS_preset).empty()) return absl::InvalidArgumentError("--preset: is --policy here");
  if (names.empty()) return absl::InvalidArgumentError("--policy is required");
  if (names.size() > kMostPolicies) {
    return absl::InvalidArgumentError(
        absl::StrCat("--policy: ", names.size(), " are given, at most ", kMostPolicies, " can be compared"));
  }
  const std::string budget = absl::GetFlag(FLAGS_budget), recall = absl::GetFlag(FLAGS_recall);
  std::vector<InspectedPolicy> policies;
  for (const std::string& name : names) {
    TP_ASSIGN_OR_RETURN(InspectedPolicy policy, ReadPolicy(name, budget, recall, flags));
    for (const InspectedPolicy& other : policies) {
      if (other.label == name) return absl::InvalidArgumentError(absl::StrCat("--policy: ", name, " is given twice"));
    }
    policies.push_back(std::move(policy));
  }
  if (!flags->session.empty()) return absl::InvalidArgumentError("--session: inspect keeps nothing");
  if (flags->logprobs >= 0) return absl::InvalidArgumentError("--logprobs: inspect shows none");
  return policies;
}

absl::Status WritePage(const std::string& path, const std::string& page) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << page;
  out.close();
  return out ? absl::OkStatus() : absl::FailedPreconditionError(absl::StrCat("--out: cannot write ", path));
}

void PrintSummary(const Inspection& inspection) {
  const RetentionTrace& trace = *inspection.trace;
  HeadRetention sum;
  const double heads = trace.layers() * trace.kv_heads();
  double all = 0;
  for (int layer = 0; layer < trace.layers(); ++layer) {
    for (int kv_head = 0; kv_head < trace.kv_heads(); ++kv_head) {
      const HeadRetention head = trace.Retention(layer, kv_head);
      sum.kept += head.kept;
      sum.recalled += head.recalled;
      sum.merged += head.merged;
      sum.evicted += head.evicted;
      sum.prompt_attention += head.prompt_attention / heads;
      sum.later_kept += head.later_kept / heads;
      sum.later_recalled += head.later_recalled / heads;
      all += trace.tokens();
    }
  }
  std::printf("%-24s kept %5.1f %%  recalled %5.1f %%  merged %5.1f %%  evicted %5.1f %%  attention kept %5.1f %%",
              inspection.label.c_str(), 100 * sum.kept / all, 100 * sum.recalled / all, 100 * sum.merged / all,
              100 * sum.evicted / all, 100 * sum.prompt_attention);
  if (trace.later_queries() > 0) {
    std::printf(", later %5.1f %% + %.1f %% recalled", 100 * sum.later_kept, 100 * sum.later_recalled);
  }
  std::printf("\n");
}

absl::Status RunInspect(const std::vector<InspectedPolicy>& policies, const GenerationFlags& flags,
                        const InspectedText& text) {
  if (ModelFlag().empty()) return absl::InvalidArgumentError("--model is required");
  TP_ASSIGN_OR_RETURN(EngineOptions options, EngineOptionsFromFlags());
  absl::StatusOr<std::shared_ptr<const Model>> model = Model::Load(ModelFlag());
  // A file that is missing or broken is not a mistake in the command's form: exit code 1.
  if (!model.ok()) return absl::FailedPreconditionError(absl::StrCat("--model: ", model.status().message()));
  TP_ASSIGN_OR_RETURN(const std::unique_ptr<TemporaryDirectory> directory, TemporaryDirectory::Make());
  CacheOptions cache_options;
  cache_options.data_dir = directory->path();
  const KvLayout layout = LayoutOf(**model, options.kv_type);
  TP_ASSIGN_OR_RETURN(const std::unique_ptr<EmbeddedCache> cache, EmbeddedCache::Open(cache_options, layout));
  TP_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine,
                      Engine::Create(std::move(options), *model, cache.get(), cache->manifests()));
  const absl::Time deadline = Deadline();
  std::vector<Inspection> inspections;
  for (const InspectedPolicy& policy : policies) {
    TP_ASSIGN_OR_RETURN(Inspection inspection,
                        Inspect(*engine, layout, text, policy, flags.sampling, flags.stop, deadline));
    if (!Json()) {
      PrintSummary(inspection);
      std::fflush(stdout);
    }
    inspections.push_back(std::move(inspection));
  }
  const std::string json = InspectionJson(**model, text.question, inspections);
  if (Json()) std::printf("%s\n", json.c_str());
  const std::string out = absl::GetFlag(FLAGS_out);
  if (out.empty()) return absl::OkStatus();
  const std::string page = InspectionPage(json);
  TP_RETURN_IF_ERROR(WritePage(out, page));
  if (!Json()) std::printf("%s: %s, open it in a browser\n", out.c_str(), FormatByteSize(page.size()).c_str());
  return absl::OkStatus();
}

int InspectMain(const Arguments& arguments) {
  if (!arguments.empty()) return UsageError(absl::StrCat("inspect: unexpected argument '", arguments[0], "'"));
  GenerationFlags flags;
  const absl::StatusOr<std::vector<InspectedPolicy>> policies = ReadPolicies(&flags);
  if (!policies.ok()) return UsageError(policies.status());
  const absl::StatusOr<std::string> prompt = ReadText(absl::GetFlag(FLAGS_prompt_file));
  if (!prompt.ok()) return UsageError(prompt.status());
  const InspectedText text = {*prompt, absl::GetFlag(FLAGS_question), absl::GetFlag(FLAGS_chat_template)};
  if (client::ValidUtf8Prefix(text.question) != text.question.size()) {
    return UsageError("--question: is not UTF-8");
  }
  const absl::Status status = RunInspect(*policies, flags, text);
  return status.ok() ? kOk : Fail(status);
}

}  // namespace

Command InspectCommand() {
  return {
      .name = "inspect",
      .arguments = "--model FILE.gguf --prompt-file FILE --policy P",
      .summary = "a page that shows what policies keep of a prompt",
      .details =
          "Runs the prompt through the model in this process, once for each policy, and writes one page that needs "
          "no network:\nwhich tokens every layer and kv head kept, merged, evicted and recalled, the budgets, and the "
          "attention kept.\n--json also prints its data as one line (docs/inspect.md). For example, what recall "
          "brings back for a question:\n  tidepool inspect --model=M.gguf --prompt-file=paper.txt "
          "--question='Who wrote it?' --policy=snapkv,snapkv+sync",
      .flags = {"client/cli/inspect.cc", "client/cli/generation_flags.cc", "client/cli/compression_flags.cc",
                "--prompt-file", "--chat-template", "--json", "--timeout", "--model", "--threads", "--device-kv-bytes",
                "--prefill-chunk", "--kv-type", "--f32-weights"},
      .run = InspectMain};
}

}  // namespace tidepool::cli
