// tidepool generate: one prompt, one answer.
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "client/cli/cli.h"
#include "client/generation_client.h"

ABSL_FLAG(std::string, prompt, "", "text to go on from");
ABSL_FLAG(std::string, prompt_file, "", "file with the text; - is standard input");
ABSL_FLAG(bool, chat_template, false, "the prompt is a user's message: render it with the model's chat template");
ABSL_FLAG(std::string, session, "", "session that keeps the context: the prompt is its next turn");

namespace tidepool::cli {
namespace {

absl::StatusOr<std::string> Prompt() {
  const std::string text = absl::GetFlag(FLAGS_prompt), file = absl::GetFlag(FLAGS_prompt_file);
  if (!text.empty() && !file.empty())
    return absl::InvalidArgumentError("--prompt, --prompt-file: only one of them can be given");
  if (!text.empty()) return text;
  if (file.empty() && isatty(STDIN_FILENO))
    return absl::InvalidArgumentError("--prompt: is missing (or give --prompt-file, or a pipe)");
  if (file.empty() || file == "-") return std::string(std::istreambuf_iterator<char>(std::cin), {});
  std::ifstream in(file, std::ios::binary);
  if (!in) return absl::InvalidArgumentError(absl::StrCat("--prompt-file: cannot read ", file));
  return std::string(std::istreambuf_iterator<char>(in), {});
}

void Show(const v1::GenerateResponse& response) {
  if (Json()) return PrintJson(response);
  if (response.has_progress() && isatty(STDERR_FILENO)) {
    const v1::Progress& progress = response.progress();
    std::fprintf(stderr, "\rreading the prompt: %d of %d tokens\033[K%s", static_cast<int>(progress.prefilled_tokens()),
                 static_cast<int>(progress.prompt_tokens()),
                 progress.prefilled_tokens() >= progress.prompt_tokens() ? "\r\033[K" : "");
  }
  if (response.has_tokens()) {
    std::fwrite(response.tokens().text().data(), 1, response.tokens().text().size(), stdout);
    std::fflush(stdout);
  }
}

}  // namespace

int Generate(const Arguments& arguments) {
  if (!arguments.empty()) return UsageError(absl::StrCat("generate: unexpected argument '", arguments[0], "'"));
  absl::StatusOr<std::string> prompt = Prompt();
  if (!prompt.ok()) return UsageError(std::string(prompt.status().message()));
  GenerationClient client(WorkerAddress());
  absl::StatusOr<v1::Finished> finished;
  if (absl::GetFlag(FLAGS_chat_template)) {
    v1::ChatRequest request;
    v1::ChatMessage& message = *request.add_messages();
    message.set_role("user");
    message.set_content(*prompt);
    request.set_session_id(absl::GetFlag(FLAGS_session));
    const absl::Status filled =
        FillFromFlags(*request.mutable_sampling(), *request.mutable_stop(), *request.mutable_compression());
    if (!filled.ok()) return UsageError(std::string(filled.message()));
    finished = client.Chat(request, Show);
  } else {
    v1::GenerateRequest request;
    request.set_text(*prompt);
    request.set_session_id(absl::GetFlag(FLAGS_session));
    const absl::Status filled =
        FillFromFlags(*request.mutable_sampling(), *request.mutable_stop(), *request.mutable_compression());
    if (!filled.ok()) return UsageError(std::string(filled.message()));
    finished = client.Generate(request, Show);
  }
  if (!finished.ok()) return Fail(finished.status());
  if (Json()) {
    v1::GenerateResponse last;
    *last.mutable_finished() = *finished;
    PrintJson(last);
  } else {
    std::printf("\n");
    std::fflush(stdout);
    std::fprintf(stderr, "[%s]\n", Summary(finished->usage()).c_str());
  }
  return kOk;
}

}  // namespace tidepool::cli
