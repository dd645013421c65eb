// tidepool chat: a conversation. Ctrl-C ends the answer under way, not the program; Ctrl-D leaves.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <functional>
#include <iostream>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/mutex.h"
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

// One conversation. In a session the worker keeps it and gets only what is new: under the name that the user gave, or
// under one that is forgotten at the end.
class Conversation {
 public:
  Conversation(GenerationClient* client, const GenerationFlags& flags) : client_(client) {
    Apply(flags, request_);
    temporary_ = flags.session.empty() && !absl::GetFlag(FLAGS_no_session);
    if (const std::string system = absl::GetFlag(FLAGS_system); !system.empty()) Add("system", system);
  }

  // Asks and prints.
  absl::Status Say(const std::string& text) {
    Add("user", text);
    const bool first = temporary_ && request_.session_id().empty();
    if (first) request_.set_session_id(OpenSession());
    absl::Status status = Turn();
    if (first && absl::IsFailedPrecondition(status)) {  // the worker has no cache service
      temporary_ = false;
      TakeOpenSession();
      request_.clear_session_id();
      status = Turn();
    }
    return status;
  }

  // Forgets the session, if it is not the user's. From any thread.
  void Leave() {
    client_->Cancel();
    const std::string session = TakeOpenSession();
    if (session.empty()) return;
    const absl::Status ended = client_->EndSession(session);
    if (!ended.ok()) {
      std::fprintf(stderr, "tidepool: session %s may still be stored: %s\n", session.c_str(),
                   std::string(ended.message()).c_str());
    }
  }

 private:
  void Add(const char* role, const std::string& content) {
    v1::ChatMessage& message = *request_.add_messages();
    message.set_role(role);
    message.set_content(content);
    if (temporary_) history_.push_back(message);
  }

  absl::Status Turn() {
    AnswerPrinter printer;
    const absl::StatusOr<v1::Finished> finished = client_->Chat(
        request_, [&printer](const v1::GenerateResponse& response) { printer.OnEvent(response); }, Deadline());
    const bool session = !request_.session_id().empty();
    if (finished.ok()) {
      printer.OnFinished(*finished);
      if (session) request_.clear_messages();  // it has them and the answer
      Answer(printer.text(), /*send=*/!session);
    } else if (absl::IsCancelled(finished.status())) {
      printer.OnBroken();
      Fail(finished.status());
      Answer(printer.text(), /*send=*/true);
      // The answer may have been stored just before it was cancelled. Only a new session surely has it once.
      if (temporary_) Restart();
    } else {
      printer.OnBroken();
      return finished.status();
    }
    return absl::OkStatus();
  }

  void Answer(const std::string& text, bool send) {
    if (send) return Add("assistant", text);
    if (!temporary_) return;
    v1::ChatMessage& message = history_.emplace_back();
    message.set_role("assistant");
    message.set_content(text);
  }

  void Restart() {
    Leave();
    request_.set_session_id(OpenSession());
    request_.mutable_messages()->Assign(history_.begin(), history_.end());
  }

  std::string OpenSession() {
    MutexLock lock(&mutex_);
    return open_session_ = NewSessionId();
  }
  std::string TakeOpenSession() {
    MutexLock lock(&mutex_);
    return std::exchange(open_session_, "");
  }

  GenerationClient* const client_;
  v1::ChatRequest request_;               // its messages: what is sent next
  bool temporary_ = false;                // nobody else goes on with the session
  std::vector<v1::ChatMessage> history_;  // of a temporary session, for the next one
  Mutex mutex_;
  std::string open_session_ ABSL_GUARDED_BY(mutex_);  // temporary, and the worker may have it
};

int Chat(const Arguments& arguments) {
  if (!arguments.empty()) return UsageError(absl::StrCat("chat: unexpected argument '", arguments[0], "'"));
  GenerationFlags flags;
  if (const absl::Status read = ReadGenerationFlags(&flags); !read.ok()) return UsageError(read);
  if (!flags.session.empty() && absl::GetFlag(FLAGS_no_session)) {
    return UsageError("--session, --no-session: only one of them can be given");
  }
  Signals signals;
  const auto security = ReadSecurity();
  if (!security.ok()) return UsageError(security.status());
  GenerationClient client(WorkerAddress(), *security);
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
          .arguments = "[--session ID | --no-session]",
          .summary = "a conversation; Ctrl-C ends an answer, Ctrl-D leaves",
          .details =
              "Every line of standard input is a message. The worker keeps the conversation until chat ends, or, with "
              "--session,\nfor another chat to go on with; without a cache service, or with --no-session, it is sent "
              "whole each time.\nAn answer that Ctrl-C ended is not kept but sent with the next message.",
          .flags = {"client/cli/chat.cc", "client/cli/generation_flags.cc", "client/cli/compression_flags.cc",
                    "--worker", "--json", "--timeout", kChannelFlags},
          .run = Chat};
}

}  // namespace tidepool::cli
