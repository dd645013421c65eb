// tidepool-worker: serves a model, with its evicted keys and values in a cache service.
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "base/flags.h"
#include "base/status_macros.h"
#include "cacheservice/remote/remote_cache.h"
#include "security/rpc/channel_flags.h"
#include "security/rpc/server_flags.h"
#include "worker/rpc/worker_process.h"

ABSL_FLAG(std::string, listen, "127.0.0.1:7071", "host:port (port 0: any free one) or unix:PATH");
ABSL_FLAG(std::string, cache, "", "cache service, host:port or unix:PATH; empty: none, nothing is recalled or kept");
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

absl::StatusOr<AttachedCache> ConnectCache(const KvLayout& layout, const EngineOptions& options,
                                           const ServerSecurity&) {
  RemoteCacheOptions remote;
  remote.endpoint = absl::GetFlag(FLAGS_cache);
  if (remote.endpoint.empty()) return AttachedCache();
  remote.tenant = options.tenant;
  remote.layout = layout;
  TP_ASSIGN_OR_RETURN(remote.security, ChannelSecurity::Create(CacheSecurity()));
  TP_ASSIGN_OR_RETURN(std::shared_ptr<RemoteCache> cache, RemoteCache::Connect(std::move(remote)));
  return AttachedCache{.owner = cache, .blocks = cache.get(), .manifests = cache.get()};
}

int Usage(const std::string& message) {
  std::fprintf(stderr, "tidepool-worker: %s\nTry: tidepool-worker --help\n", message.c_str());
  return 2;
}

}  // namespace
}  // namespace tidepool

int main(int argc, char** argv) {
  const absl::StatusOr<std::vector<std::string>> rest = tidepool::ParseFlags(argc, argv, tidepool::kFlags);
  if (!rest.ok()) return tidepool::Usage(std::string(rest.status().message()));
  if (!rest->empty() && rest->front() == "--help") {
    std::printf(
        "tidepool-worker: serves a model with compressed keys and values.\n\n"
        "  tidepool-worker --model=FILE.gguf [--cache=HOST:PORT] [flags]\n\n%s\n"
        "Exit codes: 0 ended by SIGTERM or SIGINT, 1 failed, 2 usage.\n",
        tidepool::FlagHelp(tidepool::kFlags).c_str());
    return 0;
  }
  if (!rest->empty()) return tidepool::Usage(absl::StrCat("unexpected argument '", rest->front(), "'"));
  if (const absl::Status secured = tidepool::ChannelSecurity::Check(tidepool::CacheSecurity()); !secured.ok()) {
    return tidepool::Usage(std::string(secured.message()));  // before a large model is read
  }
  return tidepool::RunWorker({.program = "tidepool-worker",
                              .listen = absl::GetFlag(FLAGS_listen),
                              .security = tidepool::ServerSecurityFromFlags(),
                              .open_cache = tidepool::ConnectCache});
}
