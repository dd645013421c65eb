// tidepool serve: a worker and its cache in one process, on a data directory.
#include <csignal>
#include <cstdio>
#include <memory>
#include <string>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "base/byte_size.h"
#include "base/flags.h"
#include "cacheservice/embedded/embedded_cache.h"
#include "client/cli/cli.h"
#include "worker/backend/backend.h"
#include "worker/model/model.h"
#include "worker/rpc/worker_flags.h"
#include "worker/rpc/worker_server.h"

ABSL_FLAG(std::string, listen, "127.0.0.1:7071", "serve: host:port (port 0: any free one) or unix:PATH");
ABSL_FLAG(std::string, data_dir, "", "serve: directory of the cache; made if absent. Required");
ABSL_FLAG(std::string, memory_bytes, "1GiB", "serve: block values in memory, 256KiB to 16TiB");
ABSL_FLAG(std::string, disk_bytes, "8GiB", "serve: block values on disk, 16MiB to 1024TiB");
ABSL_FLAG(bool, insecure, false, "serve: allow plain text on other than loopback addresses");

namespace tidepool::cli {

int Serve(const Arguments& arguments) {
  if (!arguments.empty()) return UsageError(absl::StrCat("serve: unexpected argument '", arguments[0], "'"));
  // Signals are taken by sigwait below: block them before any thread exists.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  if (ModelFlag().empty()) return UsageError("serve: --model is required");
  absl::StatusOr<EngineOptions> options = EngineOptionsFromFlags();
  if (!options.ok()) return UsageError(std::string(options.status().message()));
  CacheOptions cache_options;
  cache_options.data_dir = absl::GetFlag(FLAGS_data_dir);
  if (cache_options.data_dir.empty()) return UsageError("serve: --data-dir is required");
  const auto memory = ParseByteSize(absl::GetFlag(FLAGS_memory_bytes));
  if (!memory.has_value())
    return UsageError(
        absl::StrCat("--memory-bytes: '", absl::GetFlag(FLAGS_memory_bytes), "' is not a size such as 64MiB"));
  const auto disk = ParseByteSize(absl::GetFlag(FLAGS_disk_bytes));
  if (!disk.has_value())
    return UsageError(absl::StrCat("--disk-bytes: '", absl::GetFlag(FLAGS_disk_bytes), "' is not a size such as 8GiB"));
  cache_options.memory_bytes = *memory;
  cache_options.disk_bytes = *disk;

  absl::StatusOr<std::shared_ptr<const Model>> model = Model::Load(ModelFlag());
  if (!model.ok()) return Fail(absl::FailedPreconditionError(absl::StrCat("--model: ", model.status().message())));
  absl::StatusOr<std::unique_ptr<EmbeddedCache>> cache =
      EmbeddedCache::Open(cache_options, LayoutOf(**model, options->kv_type));
  if (!cache.ok()) return Fail(cache.status());
  absl::StatusOr<std::unique_ptr<Engine>> engine =
      Engine::Create(*std::move(options), *model, cache->get(), (*cache)->manifests());
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
  (*server)->Shutdown(absl::Seconds(5));
  return kOk;
}

}  // namespace tidepool::cli
