// tidepool serve: a worker and its cache in one process, on a data directory.
#include <grpcpp/impl/service_type.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "base/byte_size.h"
#include "base/status_macros.h"
#include "cacheservice/embedded/embedded_cache.h"
#include "cacheservice/rpc/cache_context.h"
#include "cacheservice/rpc/cache_metrics.h"
#include "cacheservice/rpc/cache_store_service.h"
#include "cacheservice/rpc/runtime_config.h"
#include "client/cli/cli.h"
#include "security/rpc/server_flags.h"
#include "worker/rpc/worker_process.h"

ABSL_FLAG(std::string, listen, "127.0.0.1:7071", "host:port (port 0: any free one) or unix:PATH");
ABSL_FLAG(std::string, data_dir, "", "directory of the cache; made if absent, one process at a time. Required");
ABSL_FLAG(std::string, memory_bytes, "1GiB", "block values in memory: 256KiB to 16TiB");
ABSL_FLAG(std::string, memory_policy, "chain", "which value leaves memory next: chain, lru or sieve");
ABSL_FLAG(std::string, disk_bytes, "8GiB", "block values on disk: 16MiB to 1024TiB");
ABSL_FLAG(
    absl::Duration, disk_ttl, absl::ZeroDuration(),
    "block values on disk that nobody has written or read for so long leave it, 1s to 87600h; 0: they leave only to "
    "make room");

namespace tidepool::cli {
namespace {

// The embedded cache and the service by which `tidepool admin` asks about it. No CacheStore: other workers need a
// tidepool-cache.
struct AdministeredCache {
  AdministeredCache(std::unique_ptr<EmbeddedCache> opened, const ServerSecurity* security)
      : cache(std::move(opened)),
        config(cache->blocks(), ListFlags(ServeCommand().flags)),
        context(cache->blocks(), cache->disk_manifests(), /*threads=*/1, /*most_staging_bytes=*/0, security),
        admin(MakeCacheAdminService(&context)) {
    context.pins = cache->pins();
    context.config = &config;
  }

  const std::unique_ptr<EmbeddedCache> cache;
  RuntimeConfig config;
  CacheContext context;
  const std::unique_ptr<grpc::Service> admin;
};

absl::StatusOr<uint64_t> ReadSize(const char* flag, const std::string& text) {
  const std::optional<uint64_t> bytes = ParseByteSize(text);
  if (bytes.has_value()) return *bytes;
  return absl::InvalidArgumentError(absl::StrCat(flag, ": '", text, "' is not a size such as 64MiB"));
}

absl::StatusOr<CacheOptions> ReadCacheOptions() {
  CacheOptions options;
  options.data_dir = absl::GetFlag(FLAGS_data_dir);
  if (options.data_dir.empty()) return absl::InvalidArgumentError("--data-dir is required");
  TP_ASSIGN_OR_RETURN(options.memory_bytes, ReadSize("--memory-bytes", absl::GetFlag(FLAGS_memory_bytes)));
  options.memory_policy = absl::GetFlag(FLAGS_memory_policy);
  TP_ASSIGN_OR_RETURN(options.disk_bytes, ReadSize("--disk-bytes", absl::GetFlag(FLAGS_disk_bytes)));
  options.disk_ttl = absl::GetFlag(FLAGS_disk_ttl);
  TP_RETURN_IF_ERROR(options.Validate());
  return options;
}

int Serve(const Arguments& arguments) {
  if (!arguments.empty()) return UsageError(absl::StrCat("serve: unexpected argument '", arguments[0], "'"));
  absl::StatusOr<CacheOptions> cache_options = ReadCacheOptions();
  if (!cache_options.ok()) return UsageError(cache_options.status());
  const auto open_cache = [&cache_options](const KvLayout& layout, const EngineOptions&,
                                           const ServerSecurity& security) -> absl::StatusOr<AttachedCache> {
    TP_ASSIGN_OR_RETURN(std::unique_ptr<EmbeddedCache> cache, EmbeddedCache::Open(*cache_options, layout));
    const auto owner = std::make_shared<AdministeredCache>(std::move(cache), &security);
    return AttachedCache{.owner = owner,
                         .blocks = owner->cache.get(),
                         .manifests = owner->cache->manifests(),
                         .services = {owner->admin.get()},
                         .metrics = [&context = owner->context](MetricsPage& page) { AddCacheMetrics(context, page); }};
  };
  return RunWorker({.program = "tidepool serve",
                    .listen = absl::GetFlag(FLAGS_listen),
                    .security = ServerSecurityFromFlags(),
                    .open_cache = open_cache});
}

}  // namespace

Command ServeCommand() {
  return {.name = "serve",
          .arguments = "--model FILE.gguf --data-dir DIR",
          .summary = "a worker and its cache in one process",
          .details =
              "Prints \"listening on ADDRESS\" when it serves; ends on SIGTERM or SIGINT. tidepool admin finds the "
              "cache there:\ntidepool admin stats --cache=ADDRESS.",
          .flags = {"client/cli/serve.cc", "worker_flags", "rpc/server_flags", "--tls-cert", "--tls-key", "--tls-ca"},
          .run = Serve};
}

}  // namespace tidepool::cli
