// tidepool chat: a conversation. Ctrl-C ends the answer under way, not the program; Ctrl-D leaves.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <iostream>
#include <string>
#include <thread>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "client/cli/cli.h"
#include "client/generation_client.h"

ABSL_FLAG(std::string, system, "", "system message of the conversation");

namespace tidepool::cli {
namespace {

// Takes SIGINT on a thread of its own, where cancelling is allowed.
class Interrupts {
 public:
  explicit Interrupts(GenerationClient* client) : client_(client) {
    sigemptyset(&signals_);
    sigaddset(&signals_, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
    std::thread([this] {
      int signal = 0;
      while (sigwait(&signals_, &signal) == 0) client_->Cancel();
    }).detach();  // lives as long as the program
  }

 private:
  sigset_t signals_;
  GenerationClient* const client_;
};

}  // namespace

int Chat(const Arguments& arguments) {
  if (!arguments.empty()) return UsageError(absl::StrCat("chat: unexpected argument '", arguments[0], "'"));
  v1::ChatRequest base;
  const absl::Status filled =
      FillFromFlags(*base.mutable_sampling(), *base.mutable_stop(), *base.mutable_compression());
  if (!filled.ok()) return UsageError(std::string(filled.message()));
  static GenerationClient client(WorkerAddress());
  absl::StatusOr<v1::GetModelResponse> model = client.GetModel();
  if (!model.ok()) return Fail(model.status());
  if (model->chat_template().empty())
    return Fail(absl::FailedPreconditionError("this model has no chat template that is known"));
  static Interrupts interrupts(&client);

  // The whole conversation is sent each time: stored prefixes are not computed again, and an answer that was cut short
  // is no trouble.
  std::string system = absl::GetFlag(FLAGS_system);
  if (!system.empty()) {
    v1::ChatMessage& message = *base.add_messages();
    message.set_role("system");
    message.set_content(system);
  }
  const bool terminal = isatty(STDIN_FILENO);
  if (terminal) {
    std::fprintf(stderr, "%s (%s). Ctrl-C ends an answer, Ctrl-D leaves.\n", model->name().c_str(),
                 model->architecture().c_str());
  }
  for (;;) {
    if (terminal) std::fprintf(stderr, "> ");
    std::string line;
    if (!std::getline(std::cin, line)) break;
    if (line.empty()) continue;
    v1::ChatMessage& message = *base.add_messages();
    message.set_role("user");
    message.set_content(line);
    std::string answer;
    const absl::StatusOr<v1::Finished> finished = client.Chat(base, [&](const v1::GenerateResponse& response) {
      if (response.has_tokens()) answer += response.tokens().text();
      if (Json()) return PrintJson(response);
      if (!response.has_tokens()) return;
      std::fwrite(response.tokens().text().data(), 1, response.tokens().text().size(), stdout);
      std::fflush(stdout);
    });
    if (!finished.ok() && !absl::IsCancelled(finished.status())) return Fail(finished.status());
    if (Json() && finished.ok()) {
      v1::GenerateResponse last;
      *last.mutable_finished() = *finished;
      PrintJson(last);
    } else if (!Json()) {
      std::printf("\n");
      std::fflush(stdout);
      std::fprintf(stderr, "[%s]\n", finished.ok() ? Summary(finished->usage()).c_str() : "cancelled");
    }
    v1::ChatMessage& reply = *base.add_messages();
    reply.set_role("assistant");
    reply.set_content(answer);
  }
  if (terminal) std::fprintf(stderr, "\n");
  return kOk;
}

}  // namespace tidepool::cli
