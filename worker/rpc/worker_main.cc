// tidepool-worker: serves a model, with its evicted keys and values in a cache service.
#include <csignal>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "base/flags.h"
#include "base/log.h"
#include "cacheservice/remote/remote_cache.h"
#include "worker/backend/backend.h"
#include "worker/model/model.h"
#include "worker/rpc/worker_flags.h"
#include "worker/rpc/worker_server.h"

ABSL_FLAG(std::string, listen, "127.0.0.1:7071", "host:port (port 0: any free one) or unix:PATH");
ABSL_FLAG(std::string, cache, "", "cache service, host:port or unix:PATH; empty: none, nothing is recalled or kept");
ABSL_FLAG(bool, insecure, false, "allow plain text on other than loopback addresses");

namespace tidepool {
namespace {

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "tidepool-worker: %s\n", std::string(status.message()).c_str());
  return status.code() == absl::StatusCode::kInvalidArgument ? 2 : 1;
}

int Usage(const std::string& message) {
  std::fprintf(stderr, "tidepool-worker: %s\nTry: tidepool-worker --help\n", message.c_str());
  return 2;
}

int Main() {
  // Signals are taken by sigwait below: block them before any thread exists.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  if (ModelFlag().empty()) return Usage("--model is required");
  absl::StatusOr<EngineOptions> options = EngineOptionsFromFlags();
  if (!options.ok()) return Usage(std::string(options.status().message()));
  absl::StatusOr<std::shared_ptr<const Model>> model = Model::Load(ModelFlag());
  if (!model.ok()) {
    std::fprintf(stderr, "tidepool-worker: --model: %s\n", std::string(model.status().message()).c_str());
    return 1;
  }
  std::unique_ptr<RemoteCache> cache;
  if (const std::string endpoint = absl::GetFlag(FLAGS_cache); !endpoint.empty()) {
    RemoteCacheOptions remote;
    remote.endpoint = endpoint;
    remote.tenant = options->tenant;
    remote.layout = LayoutOf(**model, options->kv_type);
    absl::StatusOr<std::unique_ptr<RemoteCache>> connected = RemoteCache::Connect(std::move(remote));
    if (!connected.ok()) return Fail(connected.status());
    cache = *std::move(connected);
  }
  absl::StatusOr<std::unique_ptr<Engine>> engine =
      Engine::Create(*std::move(options), *model, cache.get(), cache.get());
  if (!engine.ok()) return Fail(engine.status());
  absl::StatusOr<std::unique_ptr<WorkerServer>> server =
      WorkerServer::Start(absl::GetFlag(FLAGS_listen), absl::GetFlag(FLAGS_insecure), engine->get());
  if (!server.ok()) return Fail(server.status());
  if (!PortFileFlag().empty()) {
    if (const absl::Status status = WritePortFile(PortFileFlag(), (*server)->port()); !status.ok()) return Fail(status);
  }
  std::printf("listening on %s\n", (*server)->address().c_str());
  std::fflush(stdout);
  int signal = 0;
  sigwait(&signals, &signal);
  TP_LOG(Info, "worker", "ending on signal ", signal);
  (*server)->Shutdown(absl::Seconds(5));
  return 0;
}

}  // namespace
}  // namespace tidepool

int main(int argc, char** argv) {
  const absl::StatusOr<std::vector<std::string>> rest = tidepool::ParseFlags(argc, argv);
  if (!rest.ok()) return tidepool::Usage(std::string(rest.status().message()));
  if (!rest->empty() && rest->front() == "--help") {
    std::printf(
        "tidepool-worker: serves a model with compressed keys and values.\n\n"
        "  tidepool-worker --model=FILE.gguf [--cache=HOST:PORT] [flags]\n\n%s\n"
        "Exit codes: 0 ended by SIGTERM or SIGINT, 1 failed, 2 usage.\n",
        tidepool::FlagHelp({"worker_main", "worker_flags"}).c_str());
    return 0;
  }
  if (!rest->empty()) return tidepool::Usage(absl::StrCat("unexpected argument '", rest->front(), "'"));
  return tidepool::Main();
}
