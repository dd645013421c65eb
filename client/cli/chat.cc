// tidepool chat: a conversation. Ctrl-C ends the answer under way, not the program; Ctrl-D leaves.
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <functional>
#include <iostream>
#include <random>
#include <string>
#include <thread>
#include <utility>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/cli/answer_printer.h"
#include "client/cli/cli.h"
#include "client/generation_client.h"

ABSL_FLAG(std::string, system, "", "system message of the conversation");
ABSL_FLAG(bool, no_session, false, "send the whole conversation each time; the worker keeps nothing of it");

namespace tidepool::cli {
namespace {

// Takes signals on a thread of its own, where everything is allowed. Made before the process has other threads: they
// inherit that the signals are blocked.
class Signals {
 public:
  Signals() {
    sigemptyset(&signals_);
    for (int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1}) sigaddset(&signals_, signal);
    pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
  }
  ~Signals() {
    if (!thread_.joinable()) return;
    pthread_kill(thread_.native_handle(), SIGUSR1);
    thread_.join();
  }
  // SIGINT: `interrupt`. SIGTERM, SIGHUP: `leave`, then the process ends as by that signal.
  void Handle(std::function<void()> interrupt, std::function<void()> leave) {
    thread_ = std::thread([this, interrupt = std::move(interrupt), leave = std::move(leave)] {
      int signal = 0;
      while (sigwait(&signals_, &signal) == 0 && signal != SIGUSR1) {
        if (signal == SIGINT) {
          interrupt();
        } else {
          leave();
          _exit(128 + signal);
        }
      }
    });
  }

 private:
  sigset_t signals_;
  std::thread thread_;
};

std::string NewSessionId() {
  std::random_device device;
  return absl::StrFormat("chat-%08x%08x%08x%08x", device(), device(), device(), device());
}

void Add(v1::ChatRequest& request, const char* role, const std::string& content) {
  v1::ChatMessage& message = *request.add_messages();
  message.set_role(role);
  message.set_content(content);
}

// One conversation. In a session the worker keeps it and gets only what is new: under the name that the user gave, or
// under one that is forgotten at the end.
class Conversation {
 public:
  Conversation(GenerationClient* client, const GenerationFlags& flags) : client_(client) {
    Apply(flags, request_);
    temporary_ = request_.session_id().empty() && !absl::GetFlag(FLAGS_no_session);
    if (temporary_) request_.set_session_id(NewSessionId());
    session_ = request_.session_id();
    if (const std::string system = absl::GetFlag(FLAGS_system); !system.empty()) Add(request_, "system", system);
  }

  // Asks and prints.
  absl::Status Say(const std::string& text) {
    Add(request_, "user", text);
    const bool first = temporary_ && !forget_.exchange(true);
    absl::Status status = Turn();
    if (first && absl::IsFailedPrecondition(status)) {  // the worker has no cache service
      temporary_ = false;
      forget_ = false;
      request_.clear_session_id();
      status = Turn();
    }
    return status;
  }

  // Forgets the session, if it is not the user's. From any thread.
  void Leave() {
    if (!forget_) return;
    client_->Cancel();
    const absl::Status ended = client_->EndSession(session_);
    if (!ended.ok()) {
      std::fprintf(stderr, "tidepool: session %s may still be stored: %s\n", session_.c_str(),
                   std::string(ended.message()).c_str());
    }
  }

 private:
  // The answer, as far as it came, is the request's last message then; in a session that has kept it, the request has
  // no messages.
  absl::Status Turn() {
    AnswerPrinter printer;
    const absl::StatusOr<v1::Finished> finished = client_->Chat(
        request_, [&printer](const v1::GenerateResponse& response) { printer.OnEvent(response); }, Deadline());
    if (finished.ok()) {
      printer.OnFinished(*finished);
      if (!request_.session_id().empty()) {
        request_.clear_messages();
        return absl::OkStatus();
      }
    } else if (absl::IsCancelled(finished.status())) {
      printer.OnBroken();
      Fail(finished.status());
    } else {
      printer.OnBroken();
      return finished.status();
    }
    Add(request_, "assistant", printer.text());
    return absl::OkStatus();
  }

  GenerationClient* const client_;
  v1::ChatRequest request_;
  std::string session_;
  bool temporary_ = false;           // nobody else goes on with the session
  std::atomic<bool> forget_{false};  // the worker may have it
};

int Chat(const Arguments& arguments) {
  if (!arguments.empty()) return UsageError(absl::StrCat("chat: unexpected argument '", arguments[0], "'"));
  GenerationFlags flags;
  if (const absl::Status read = ReadGenerationFlags(&flags); !read.ok()) return UsageError(read);
  if (!flags.session.empty() && absl::GetFlag(FLAGS_no_session)) {
    return UsageError("--session, --no-session: only one of them can be given");
  }
  Signals signals;
  GenerationClient client(WorkerAddress());
  const absl::StatusOr<v1::GetModelResponse> model = client.GetModel();
  if (!model.ok()) return Fail(model.status());
  if (model->chat_template().empty()) {
    return Fail(absl::FailedPreconditionError("this model has no chat template that is known"));
  }
  Conversation conversation(&client, flags);
  signals.Handle([&client] { client.Cancel(); }, [&conversation] { conversation.Leave(); });

  const bool terminal = isatty(STDIN_FILENO);
  if (terminal) {
    std::fprintf(stderr, "%s (%s). Ctrl-C ends an answer, Ctrl-D leaves.\n", model->name().c_str(),
                 model->architecture().c_str());
  }
  int exit_code = kOk;
  std::string line;
  while (exit_code == kOk) {
    if (terminal) std::fprintf(stderr, "> ");
    if (!std::getline(std::cin, line)) break;
    if (line.empty()) continue;
    if (const absl::Status said = conversation.Say(line); !said.ok()) exit_code = Fail(said);
  }
  if (terminal && exit_code == kOk) std::fprintf(stderr, "\n");
  conversation.Leave();
  return exit_code;
}

}  // namespace

Command ChatCommand() {
  return {.name = "chat",
          .arguments = "",
          .summary = "a conversation; Ctrl-C ends an answer, Ctrl-D leaves",
          .details =
              "Every line of standard input is a message. The worker keeps the conversation until chat ends, or, with "
              "--session,\nfor another chat to go on with; without a cache service, or with --no-session, it is sent "
              "whole each time.\nAn answer that Ctrl-C ended is not kept but sent with the next message.",
          .flags = {"client/cli/chat.cc", "client/cli/generation_flags.cc", "--worker", "--json", "--timeout"},
          .run = Chat};
}

}  // namespace tidepool::cli
