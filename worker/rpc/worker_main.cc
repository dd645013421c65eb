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
#include "worker/rpc/worker_process.h"

ABSL_FLAG(std::string, listen, "127.0.0.1:7071", "host:port (port 0: any free one) or unix:PATH");
ABSL_FLAG(std::string, cache, "", "cache service, host:port or unix:PATH; empty: none, nothing is recalled or kept");
ABSL_FLAG(bool, insecure, false, "allow plain text on other than loopback addresses");

namespace tidepool {
namespace {

absl::StatusOr<AttachedCache> ConnectCache(const KvLayout& layout, const EngineOptions& options) {
  RemoteCacheOptions remote;
  remote.endpoint = absl::GetFlag(FLAGS_cache);
  if (remote.endpoint.empty()) return AttachedCache();
  remote.tenant = options.tenant;
  remote.layout = layout;
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
  const absl::StatusOr<std::vector<std::string>> rest =
      tidepool::ParseFlags(argc, argv, {"worker_main", "worker_flags"});
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
  return tidepool::RunWorker({.program = "tidepool-worker",
                              .listen = absl::GetFlag(FLAGS_listen),
                              .insecure = absl::GetFlag(FLAGS_insecure),
                              .open_cache = tidepool::ConnectCache});
}
