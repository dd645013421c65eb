// tidepool generate: one prompt, one answer.
#include <unistd.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <utility>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "client/cli/answer_printer.h"
#include "client/cli/cli.h"
#include "client/generation_client.h"

ABSL_FLAG(std::string, prompt, "", "text to go on from");
ABSL_FLAG(std::string, prompt_file, "", "file with the text; - is standard input");
ABSL_FLAG(bool, chat_template, false, "the prompt is a user's message: render it with the model's chat template");

namespace tidepool::cli {

absl::StatusOr<std::string> ReadPrompt() {
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

namespace {

int Generate(const Arguments& arguments) {
  if (!arguments.empty()) return UsageError(absl::StrCat("generate: unexpected argument '", arguments[0], "'"));
  GenerationFlags flags;
  if (const absl::Status read = ReadGenerationFlags(&flags); !read.ok()) return UsageError(read);
  absl::StatusOr<std::string> prompt = ReadPrompt();
  if (!prompt.ok()) return UsageError(prompt.status());
  const auto security = ReadSecurity();
  if (!security.ok()) return UsageError(security.status());
  GenerationClient client(WorkerAddress(), *security);
  AnswerPrinter printer;
  const auto on_event = [&printer](const v1::GenerateResponse& response) { printer.OnEvent(response); };
  absl::StatusOr<v1::Finished> finished;
  if (absl::GetFlag(FLAGS_chat_template)) {
    v1::ChatRequest request;
    Apply(flags, request);
    v1::ChatMessage& message = *request.add_messages();
    message.set_role("user");
    message.set_content(*std::move(prompt));
    finished = client.Chat(request, on_event, Deadline());
  } else {
    v1::GenerateRequest request;
    Apply(flags, request);
    request.set_text(*std::move(prompt));
    finished = client.Generate(request, on_event, Deadline());
  }
  if (!finished.ok()) {
    printer.OnBroken();
    return Fail(finished.status());
  }
  printer.OnFinished(*finished);
  return kOk;
}

}  // namespace

Command GenerateCommand() {
  return {.name = "generate",
          .arguments = "[--prompt TEXT | --prompt-file FILE | < FILE]",
          .summary = "one answer, streamed",
          .details =
              "The text goes to stdout, a summary to stderr. With --json every response of the worker is a line "
              "on stdout:\n{\"progress\": ..}, {\"tokens\": ..} and at the end {\"finished\": ..} or "
              "{\"error\": ..} (docs/API.md).",
          .flags = {"client/cli/generate.cc", "client/cli/generation_flags.cc", "client/cli/compression_flags.cc",
                    "--worker", "--json", "--timeout", kChannelFlags},
          .run = Generate};
}

}  // namespace tidepool::cli
