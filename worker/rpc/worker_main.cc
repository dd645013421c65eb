// tidepool-worker: serves a model, with its evicted keys and values in a cache service.
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/flags.h"
#include "base/freed_memory.h"
#include "base/man_page.h"
#include "base/mutex_checks.h"
#include "base/status_macros.h"
#include "cacheservice/remote/remote_cache.h"
#include "cacheservice/shards/pod_list.h"
#include "cacheservice/shards/sharded_cache.h"
#include "security/rpc/channel_flags.h"
#include "security/rpc/server_flags.h"
#include "worker/rpc/worker_process.h"

ABSL_FLAG(std::string, listen, "127.0.0.1:7071", "host:port (port 0: any free one) or unix:PATH");
ABSL_FLAG(std::string, cache, "",
          "cache service, host:port or unix:PATH; several pods of one service: a:7070,b:7070,c:7070, or "
          "dns:///NAME:PORT for all addresses of a name; empty: none, nothing is recalled or kept");
ABSL_FLAG(int, cache_copies, 1,
          "pods that each block is stored on, of several: 1, or 2 so that a pod that fails costs no block");
ABSL_FLAG(absl::Duration, cache_slow_start, absl::Seconds(30),
          "how long a pod that has come, or come back, takes to get its full share of new blocks: 0s to 24h");
ABSL_FLAG(bool, cache_plain_text, false, "--cache speaks plain text, though --tls-ca is given");

namespace tidepool {
namespace {

const FlagSet kFlags = {"worker_main", "worker_flags", "rpc/channel_flags", "rpc/server_flags"};

// TLS towards the cache where there is a CA to trust; the worker's own certificate is for both sides.
ChannelSecurityOptions CacheSecurity() {
  ChannelSecurityOptions options = ChannelSecurityFromFlags();
  if (absl::GetFlag(FLAGS_cache_plain_text)) options.tls_ca = options.tls_server_name = "";
  if (options.tls_ca.empty()) options.tls_cert = options.tls_key = "";
  return options;
}

constexpr absl::Duration kFirstLook = absl::Seconds(5);
constexpr size_t kPodWriteBehindBytes = size_t{16} << 20;  // what a pod grants as credit

absl::StatusOr<AttachedCache> ConnectCache(const PodList& pods, const KvLayout& layout, const EngineOptions& options) {
  RemoteCacheOptions remote;
  remote.tenant = options.tenant;
  remote.layout = layout;
  ChannelSecurityOptions security = CacheSecurity();
  if (!security.tls_ca.empty() && security.tls_server_name.empty()) security.tls_server_name = pods.dns_host;
  TP_ASSIGN_OR_RETURN(remote.security, ChannelSecurity::Create(std::move(security)));
  if (pods.single()) {
    remote.endpoint = pods.addresses.front();
    TP_ASSIGN_OR_RETURN(std::shared_ptr<RemoteCache> cache, RemoteCache::Connect(std::move(remote)));
    return AttachedCache{.owner = cache, .blocks = cache.get(), .manifests = cache.get()};
  }
  remote.write_behind_bytes = kPodWriteBehindBytes;
  ShardedCacheOptions sharded;
  sharded.pods = pods;
  sharded.remote = std::move(remote);
  sharded.copies = absl::GetFlag(FLAGS_cache_copies);
  sharded.timing.slow_start = absl::GetFlag(FLAGS_cache_slow_start);
  TP_ASSIGN_OR_RETURN(std::shared_ptr<ShardedCache> cache, ShardedCache::Connect(std::move(sharded)));
  // The first request finds the pods that are there.
  cache->WaitForPods(absl::Now() + kFirstLook);
  return AttachedCache{.owner = cache, .blocks = cache.get(), .manifests = cache.get()};
}

absl::StatusOr<AttachedCache> OpenCache(const KvLayout& layout, const EngineOptions& options, const ServerSecurity&) {
  const std::string cache = absl::GetFlag(FLAGS_cache);
  if (cache.empty()) return AttachedCache();
  TP_ASSIGN_OR_RETURN(const PodList pods, ParsePodList("--cache", cache));
  return ConnectCache(pods, layout, options);
}

// Before the model is loaded.
absl::Status CheckCacheFlags() {
  if (const int copies = absl::GetFlag(FLAGS_cache_copies); copies < 1 || copies > 2) {
    return absl::InvalidArgumentError(absl::StrCat("--cache-copies: ", copies, " is not 1 or 2"));
  }
  const absl::Duration slow_start = absl::GetFlag(FLAGS_cache_slow_start);
  if (slow_start < absl::ZeroDuration() || slow_start > absl::Hours(24)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--cache-slow-start: ", absl::FormatDuration(slow_start), " is not in 0s to 24h"));
  }
  const std::string cache = absl::GetFlag(FLAGS_cache);
  return cache.empty() ? absl::OkStatus() : ParsePodList("--cache", cache).status();
}

int Usage(const std::string& message) {
  std::fprintf(stderr, "tidepool-worker: %s\nTry: tidepool-worker --help\n", message.c_str());
  return 2;
}

}  // namespace
}  // namespace tidepool

int main(int argc, char** argv) {
  tidepool::KeepFreedMemory();
  tidepool::SkipMutexChecks();
  const absl::StatusOr<std::vector<std::string>> rest = tidepool::ParseFlags(argc, argv, tidepool::kFlags);
  if (!rest.ok()) return tidepool::Usage(std::string(rest.status().message()));
  if (!rest->empty() && rest->front() == "--man") {
    std::fputs(tidepool::FormatManPage(
                   {.name = "tidepool-worker",
                    .summary = "serves a model with compressed keys and values",
                    .usage = "tidepool-worker --model=FILE.gguf [--cache=HOST:PORT[,HOST:PORT...]] [flags]",
                    .sections = {},
                    .flags = tidepool::ListFlags(tidepool::kFlags),
                    .exit_codes = "0 ended by SIGTERM or SIGINT, 1 failed, 2 usage."})
                   .c_str(),
               stdout);
    return 0;
  }
  if (!rest->empty() && rest->front() == "--help") {
    std::printf(
        "tidepool-worker: serves a model with compressed keys and values.\n\n"
        "  tidepool-worker --model=FILE.gguf [--cache=HOST:PORT[,HOST:PORT...]] [flags]\n\n%s\n"
        "--man writes this as a manual page.\n"
        "Exit codes: 0 ended by SIGTERM or SIGINT, 1 failed, 2 usage.\n",
        tidepool::FlagHelp(tidepool::kFlags).c_str());
    return 0;
  }
  if (!rest->empty()) return tidepool::Usage(absl::StrCat("unexpected argument '", rest->front(), "'"));
  if (const absl::Status flags = tidepool::CheckCacheFlags(); !flags.ok()) {
    return tidepool::Usage(std::string(flags.message()));
  }
  if (const absl::Status secured = tidepool::ChannelSecurity::Check(tidepool::CacheSecurity()); !secured.ok()) {
    return tidepool::Usage(std::string(secured.message()));  // before a large model is read
  }
  return tidepool::RunWorker({.program = "tidepool-worker",
                              .listen = absl::GetFlag(FLAGS_listen),
                              .security = tidepool::ServerSecurityFromFlags(),
                              .open_cache = tidepool::OpenCache});
}
