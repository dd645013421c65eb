// tidepool chat: a conversation. Ctrl-C ends the answer under way, not the program; Ctrl-D leaves.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <iostream>
#include <string>
#include <thread>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "client/cli/answer_printer.h"
#include "client/cli/cli.h"
#include "client/generation_client.h"

ABSL_FLAG(std::string, system, "", "system message of the conversation");

namespace tidepool::cli {
namespace {

// Takes SIGINT on a thread of its own, where everything is allowed. Made before the process has other threads: they
// inherit that the signal is blocked.
class Interrupts {
 public:
  Interrupts() {
    sigemptyset(&signals_);
    sigaddset(&signals_, SIGINT);
    sigaddset(&signals_, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
  }
  ~Interrupts() {
    if (!thread_.joinable()) return;
    pthread_kill(thread_.native_handle(), SIGUSR1);
    thread_.join();
  }
  // `client` outlives this.
  void CancelOnInterrupt(GenerationClient* client) {
    thread_ = std::thread([this, client] {
      int signal = 0;
      while (sigwait(&signals_, &signal) == 0 && signal == SIGINT) client->Cancel();
    });
  }

 private:
  sigset_t signals_;
  std::thread thread_;
};

void Add(v1::ChatRequest& request, const char* role, const std::string& content) {
  v1::ChatMessage& message = *request.add_messages();
  message.set_role(role);
  message.set_content(content);
}

// Asks and prints. The answer, as far as it came, is the request's last message then; in a session that has kept it,
// the request has no messages.
absl::Status Turn(GenerationClient& client, v1::ChatRequest& request) {
  AnswerPrinter printer;
  const absl::StatusOr<v1::Finished> finished = client.Chat(
      request, [&printer](const v1::GenerateResponse& response) { printer.OnEvent(response); }, Deadline());
  if (finished.ok()) {
    printer.OnFinished(*finished);
    if (!request.session_id().empty()) {
      request.clear_messages();
      return absl::OkStatus();
    }
  } else if (absl::IsCancelled(finished.status())) {
    printer.OnBroken();
    Fail(finished.status());
  } else {
    printer.OnBroken();
    return finished.status();
  }
  Add(request, "assistant", printer.text());
  return absl::OkStatus();
}

int Chat(const Arguments& arguments) {
  if (!arguments.empty()) return UsageError(absl::StrCat("chat: unexpected argument '", arguments[0], "'"));
  GenerationFlags flags;
  if (const absl::Status read = ReadGenerationFlags(&flags); !read.ok()) return UsageError(read);
  Interrupts interrupts;
  GenerationClient client(WorkerAddress());
  const absl::StatusOr<v1::GetModelResponse> model = client.GetModel();
  if (!model.ok()) return Fail(model.status());
  if (model->chat_template().empty()) {
    return Fail(absl::FailedPreconditionError("this model has no chat template that is known"));
  }
  interrupts.CancelOnInterrupt(&client);

  // Without a session the whole conversation is sent each time: stored prefixes are not computed again.
  v1::ChatRequest request;
  Apply(flags, request);
  if (const std::string system = absl::GetFlag(FLAGS_system); !system.empty()) Add(request, "system", system);
  const bool terminal = isatty(STDIN_FILENO);
  if (terminal) {
    std::fprintf(stderr, "%s (%s). Ctrl-C ends an answer, Ctrl-D leaves.\n", model->name().c_str(),
                 model->architecture().c_str());
  }
  std::string line;
  for (;;) {
    if (terminal) std::fprintf(stderr, "> ");
    if (!std::getline(std::cin, line)) break;
    if (line.empty()) continue;
    Add(request, "user", line);
    if (const absl::Status turn = Turn(client, request); !turn.ok()) return Fail(turn);
  }
  if (terminal) std::fprintf(stderr, "\n");
  return kOk;
}

}  // namespace

Command ChatCommand() {
  return {.name = "chat",
          .arguments = "",
          .summary = "a conversation; Ctrl-C ends an answer, Ctrl-D leaves",
          .details =
              "Every line of standard input is a message. With --session the worker keeps the conversation and "
              "another\ntidepool chat can go on with it; an answer that Ctrl-C ended is not kept there but sent "
              "with the next message.",
          .flags = {"client/cli/chat.cc", "client/cli/generation_flags.cc", "--worker", "--json", "--timeout"},
          .run = Chat};
}

}  // namespace tidepool::cli
