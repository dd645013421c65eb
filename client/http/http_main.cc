// tidepool-http: OpenAI's HTTP API in front of workers.
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/flags.h"
#include "base/listen_address.h"
#include "base/log.h"
#include "base/man_page.h"
#include "base/mutex_checks.h"
#include "base/status_macros.h"
#include "client/http/api_keys.h"
#include "client/http/front.h"
#include "client/http/http_server.h"
#include "client/http/worker_pool.h"
#include "security/rpc/channel_flags.h"

ABSL_FLAG(std::string, listen, "127.0.0.1:8080", "host:port (port 0: any free one) or unix:PATH");
ABSL_FLAG(std::vector<std::string>, workers, {"127.0.0.1:7071"},
          "workers, host:port or unix:PATH, TENANT= before those of another tenant than 'default': 1 to 64");
ABSL_FLAG(std::string, api_keys, "",
          "file with a tenant and a key on each line, read again when it changes; empty: nobody needs a key");
ABSL_FLAG(std::string, model_id, "", "the id of every worker's model; empty: the model's own name");
ABSL_FLAG(bool, insecure, false, "allow other than loopback addresses without --api-keys");
ABSL_FLAG(int, max_connections, 1024, "connections at a time, others get 503: 1 to 65536");
ABSL_FLAG(int, http_threads, 2, "threads that read and write: 1 to 64");
ABSL_FLAG(int, request_timeout, 600, "seconds until an answer is given up with 504: 1 to 86400");
ABSL_FLAG(int, drain_time, 30, "seconds that answers may go on after SIGTERM: 0 to 86400");
ABSL_FLAG(int, chat_max_tokens, 1024, "tokens of a chat's answer when the request does not say: 1 to 1048576");
ABSL_FLAG(std::string, port_file, "", "file that gets the port, in decimal, when it listens");

namespace tidepool::http {
namespace {

const FlagSet kFlags = {"http_main", "rpc/channel_flags"};

constexpr timespec kKeysEvery{.tv_sec = 1, .tv_nsec = 0};

absl::Status CheckRange(const char* flag, int value, int low, int high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(flag, ": ", value, " is not in ", low, " to ", high));
}

absl::StatusOr<std::vector<WorkerAddress>> WorkersFromFlags() {
  std::vector<WorkerAddress> workers;
  for (const std::string& text : absl::GetFlag(FLAGS_workers)) {
    const absl::StatusOr<WorkerAddress> worker = ParseWorkerAddress(text);
    if (!worker.ok()) return absl::InvalidArgumentError(absl::StrCat("--workers: ", worker.status().message()));
    workers.push_back(*worker);
  }
  if (workers.empty() || workers.size() > kMaxWorkers) {
    return absl::InvalidArgumentError(absl::StrCat("--workers: ", workers.size(), " of them, 1 to ", kMaxWorkers));
  }
  return workers;
}

// It stands in paths.
absl::Status CheckModelId(const std::string& id) {
  const bool fits =
      id.size() <= 128 && std::all_of(id.begin(), id.end(), [](unsigned char c) {
        return absl::ascii_isalnum(c) || std::string_view("._-/:").find(static_cast<char>(c)) != std::string_view::npos;
      });
  if (fits) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--model-id: '", id, "' is not at most 128 letters, digits and . _ - / :"));
}

absl::StatusOr<std::unique_ptr<ApiKeys>> KeysFromFlags() {
  const std::string file = absl::GetFlag(FLAGS_api_keys);
  if (file.empty()) return std::make_unique<ApiKeys>();
  absl::StatusOr<std::unique_ptr<ApiKeys>> keys = ApiKeys::Open(file);
  if (keys.ok()) return keys;
  return absl::InvalidArgumentError(absl::StrCat("--api-keys: ", keys.status().message()));
}

void WarnOfTenantsWithoutWorkers(const ApiKeys& keys, const WorkerPool& pool) {
  for (const std::string& tenant : keys.Tenants()) {
    if (!pool.HasTenant(tenant)) TP_LOG(Warning, "http", "no worker is of tenant ", tenant, ", which has an API key");
  }
}

// A connection takes a descriptor, and the usual soft limit is 1024.
void RaiseDescriptorLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

// Without keys only this machine may ask, unless --insecure says otherwise.
absl::Status CheckListen(const std::string& listen, bool has_keys) {
  TP_RETURN_IF_ERROR(CheckListenAddress(listen, /*insecure=*/true));
  if (CheckListenAddress(listen, /*insecure=*/false).ok()) return absl::OkStatus();
  if (has_keys) {
    TP_LOG(Warning, "http", "API keys come to ", listen, " in plain text: put it behind a proxy that ends TLS");
    return absl::OkStatus();
  }
  if (absl::GetFlag(FLAGS_insecure)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--listen: ", listen,
                                                 " is not a loopback address or Unix socket; without --api-keys that "
                                                 "needs --insecure"));
}

// Until SIGTERM or SIGINT.
void WatchKeys(const sigset_t& signals, ApiKeys& keys, const WorkerPool& pool) {
  for (;;) {
    if (const int signal = sigtimedwait(&signals, nullptr, &kKeysEvery); signal > 0) {
      TP_LOG(Info, "http", "ending on signal ", signal);
      return;
    }
    const absl::StatusOr<bool> read = keys.ReloadIfChanged();
    if (!read.ok()) {
      TP_LOG(Error, "http", "--api-keys: ", read.status().message(), "; the keys stay as they were");
    } else if (*read) {
      TP_LOG(Info, "http", "API keys were read again");
      WarnOfTenantsWithoutWorkers(keys, pool);
    }
  }
}

absl::Status Serve(const sigset_t& signals) {
  TP_RETURN_IF_ERROR(CheckRange("--request-timeout", absl::GetFlag(FLAGS_request_timeout), 1, 86'400));
  TP_RETURN_IF_ERROR(CheckRange("--drain-time", absl::GetFlag(FLAGS_drain_time), 0, 86'400));
  TP_RETURN_IF_ERROR(CheckRange("--chat-max-tokens", absl::GetFlag(FLAGS_chat_max_tokens), 1, 1 << 20));
  TP_RETURN_IF_ERROR(CheckRange("--max-connections", absl::GetFlag(FLAGS_max_connections), 1, 65'536));
  TP_RETURN_IF_ERROR(CheckRange("--http-threads", absl::GetFlag(FLAGS_http_threads), 1, 64));
  TP_RETURN_IF_ERROR(CheckListen(absl::GetFlag(FLAGS_listen), !absl::GetFlag(FLAGS_api_keys).empty()));
  TP_RETURN_IF_ERROR(CheckModelId(absl::GetFlag(FLAGS_model_id)));
  TP_ASSIGN_OR_RETURN(const std::vector<WorkerAddress> workers, WorkersFromFlags());
  TP_ASSIGN_OR_RETURN(const std::unique_ptr<ApiKeys> keys, KeysFromFlags());

  TP_ASSIGN_OR_RETURN(const std::shared_ptr<const ChannelSecurity> security,
                      ChannelSecurity::Create(ChannelSecurityFromFlags()));

  WorkerPool pool(workers, absl::GetFlag(FLAGS_model_id), security);
  WarnOfTenantsWithoutWorkers(*keys, pool);
  pool.WaitForFirstAnswers();
  FrontOptions options;
  options.defaults.chat_max_tokens = absl::GetFlag(FLAGS_chat_max_tokens);
  options.request_timeout = absl::Seconds(absl::GetFlag(FLAGS_request_timeout));
  Front front(options, keys.get(), &pool);
  HttpServerOptions server_options;
  server_options.listen = absl::GetFlag(FLAGS_listen);
  server_options.threads = absl::GetFlag(FLAGS_http_threads);
  server_options.max_connections = absl::GetFlag(FLAGS_max_connections);
  TP_ASSIGN_OR_RETURN(const std::unique_ptr<HttpServer> server, HttpServer::Start(server_options, &front));
  if (const std::string file = absl::GetFlag(FLAGS_port_file); !file.empty()) {
    TP_RETURN_IF_ERROR(WritePortFile(file, server->port()));
  }
  std::printf("listening on %s\n", server->address().c_str());
  std::fflush(stdout);
  WatchKeys(signals, *keys, pool);
  server->Shutdown(absl::Seconds(absl::GetFlag(FLAGS_drain_time)));
  return absl::OkStatus();
}

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "tidepool-http: %s\n", std::string(status.message()).c_str());
  if (!absl::IsInvalidArgument(status)) return 1;
  std::fprintf(stderr, "Try: tidepool-http --help\n");
  return 2;
}

int Main(int argc, char** argv) {
  const absl::StatusOr<std::vector<std::string>> rest = ParseFlags(argc, argv, kFlags);
  if (!rest.ok()) return Fail(rest.status());
  if (!rest->empty() && rest->front() == "--man") {
    std::fputs(FormatManPage(
                   {.name = "tidepool-http",
                    .summary = "OpenAI's HTTP API in front of workers",
                    .usage = "tidepool-http [--workers=HOST:PORT,...] [--listen=HOST:PORT] [--api-keys=FILE] [flags]",
                    .sections = {},
                    .flags = ListFlags(kFlags),
                    .exit_codes = "0 ended by SIGTERM or SIGINT, 1 failed, 2 usage."})
                   .c_str(),
               stdout);
    return 0;
  }
  if (!rest->empty() && rest->front() == "--help") {
    std::printf(
        "tidepool-http: OpenAI's HTTP API (/v1/completions, /v1/chat/completions, /v1/models) in front of workers.\n\n"
        "  tidepool-http [--workers=HOST:PORT,...] [--listen=HOST:PORT] [--api-keys=FILE] [flags]\n\n%s\n"
        "--man writes this as a manual page.\n"
        "Exit codes: 0 ended by SIGTERM or SIGINT, 1 failed, 2 usage.\n",
        FlagHelp(kFlags).c_str());
    return 0;
  }
  if (!rest->empty())
    return Fail(absl::InvalidArgumentError(absl::StrCat("unexpected argument '", rest->front(), "'")));
  // Before there are threads: all of them must block the signals.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::signal(SIGPIPE, SIG_IGN);  // a client that has gone is an error to see, not the end
  RaiseDescriptorLimit();
  const absl::Status status = Serve(signals);
  return status.ok() ? 0 : Fail(status);
}

}  // namespace
}  // namespace tidepool::http

int main(int argc, char** argv) {
  tidepool::SkipMutexChecks();
  return tidepool::http::Main(argc, argv);
}
