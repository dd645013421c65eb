// tidepool-cache: keeps evicted keys and values, stored prefixes and sessions for workers.
#include <csignal>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/str_cat.h"
#include "base/byte_size.h"
#include "base/flags.h"
#include "base/freed_memory.h"
#include "base/log.h"
#include "base/man_page.h"
#include "base/mutex_checks.h"
#include "cacheservice/rpc/cache_server.h"
#include "cacheservice/rpc/remote_tier_flags.h"
#include "security/rpc/server_flags.h"

ABSL_FLAG(std::string, listen, "127.0.0.1:7070", "host:port (port 0: any free one) or unix:PATH");
ABSL_FLAG(std::string, data_dir, "", "directory of the database; made if absent, one process at a time. Required");
ABSL_FLAG(std::string, memory_bytes, "1GiB", "block values in memory: 256KiB to 16TiB");
ABSL_FLAG(std::string, memory_policy, "chain", "which value leaves memory next: chain, lru or sieve");
ABSL_FLAG(std::string, disk_bytes, "8GiB", "block values on disk: 16MiB to 1024TiB");
ABSL_FLAG(
    absl::Duration, disk_ttl, absl::ZeroDuration(),
    "block values on disk that nobody has written or read for so long leave it, 1s to 87600h; 0: they leave only to "
    "make room");
ABSL_FLAG(absl::Duration, slow_tier_retry, absl::Seconds(5),
          "a tier that is slower than computing is left out for prefixes, and tried again so much later, then after "
          "pauses that double up to 60 times as long: 1ms to 1h");
ABSL_FLAG(int, threads, 4, "threads that may wait for the disk: 1 to 64");
ABSL_FLAG(std::string, metrics_address, "",
          "host:port of GET /metrics for Prometheus, plain HTTP (port 0: any free one); empty: none");
ABSL_FLAG(bool, metrics_insecure, false,
          "--metrics-address may be one that other machines reach: whoever does may read the metrics");
ABSL_FLAG(std::string, flags_file, "", "file of flags, one --name=value a line, # begins a comment; later flags win");
ABSL_FLAG(
    bool, validate_config, false,
    "check the flags, and the files of flags, certificates and access that they name, and exit: 0, or 2 with what is "
    "wrong");
ABSL_FLAG(
    std::string, pod_name, "",
    "name of this pod among several, 1 to 128 characters: decides which blocks are its own; empty: a name that the "
    "data directory keeps");
ABSL_FLAG(
    std::string, peers, "",
    "all pods of the service, as in tidepool-worker --cache, this one among them or not: where `tidepool admin drain` "
    "copies to");
ABSL_FLAG(std::string, log_level, "info", "lines of the log from this level on: info, warning or error");
ABSL_FLAG(std::string, port_file, "", "file that gets the port, in decimal, when the service listens");

namespace {

const tidepool::FlagSet kFlags = {"cache_main", "remote_tier_flags", "rpc/server_flags",
                                  "--tls-cert", "--tls-key",         "--tls-ca"};

int Usage(const std::string& message) {
  std::fprintf(stderr, "tidepool-cache: %s\nTry: tidepool-cache --help\n", message.c_str());
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  tidepool::KeepFreedMemory();
  tidepool::SkipMutexChecks();
  const absl::StatusOr<std::vector<std::string>> rest = tidepool::ParseFlags(argc, argv, kFlags);
  if (!rest.ok()) return Usage(std::string(rest.status().message()));
  if (!rest->empty() && rest->front() == "--man") {
    std::fputs(
        tidepool::FormatManPage({.name = "tidepool-cache",
                                 .summary = "keeps evicted keys and values, stored prefixes and sessions for workers",
                                 .usage = "tidepool-cache --data-dir=DIR [flags]",
                                 .sections = {},
                                 .flags = tidepool::ListFlags(kFlags),
                                 .exit_codes = "0 ended by SIGTERM or SIGINT, 1 failed, 2 usage."})
            .c_str(),
        stdout);
    return 0;
  }
  if (!rest->empty() && rest->front() == "--help") {
    std::printf(
        "tidepool-cache: keeps evicted keys and values, stored prefixes and sessions for workers.\n\n"
        "  tidepool-cache --data-dir=DIR [flags]\n\n%s\n"
        "--man writes this as a manual page.\n"
        "Exit codes: 0 ended by SIGTERM or SIGINT, 1 failed, 2 usage.\n",
        tidepool::FlagHelp(kFlags).c_str());
    return 0;
  }
  if (!rest->empty()) return Usage(absl::StrCat("unexpected argument '", rest->front(), "'"));

  tidepool::CacheServerOptions options;
  options.listen = absl::GetFlag(FLAGS_listen);
  options.security = tidepool::ServerSecurityFromFlags();
  options.threads = absl::GetFlag(FLAGS_threads);
  options.metrics_address = absl::GetFlag(FLAGS_metrics_address);
  options.metrics_insecure = absl::GetFlag(FLAGS_metrics_insecure);
  options.pod_name = absl::GetFlag(FLAGS_pod_name);
  if (const std::string peers = absl::GetFlag(FLAGS_peers); !peers.empty()) {
    absl::StatusOr<tidepool::PodList> list = tidepool::ParsePodList("--peers", peers);
    if (!list.ok()) return Usage(std::string(list.status().message()));
    options.peers = *std::move(list);
  }
  options.cache.data_dir = absl::GetFlag(FLAGS_data_dir);
  if (options.cache.data_dir.empty()) return Usage("--data-dir is required");
  const auto memory = tidepool::ParseByteSize(absl::GetFlag(FLAGS_memory_bytes));
  if (!memory.has_value())
    return Usage(absl::StrCat("--memory-bytes: '", absl::GetFlag(FLAGS_memory_bytes), "' is not a size such as 64MiB"));
  const auto disk = tidepool::ParseByteSize(absl::GetFlag(FLAGS_disk_bytes));
  if (!disk.has_value())
    return Usage(absl::StrCat("--disk-bytes: '", absl::GetFlag(FLAGS_disk_bytes), "' is not a size such as 8GiB"));
  const absl::StatusOr<tidepool::RemoteTierOptions> remote = tidepool::RemoteTierFromFlags();
  if (!remote.ok()) return Usage(std::string(remote.status().message()));
  options.cache.remote = *remote;
  options.cache.remote.insecure = options.security.insecure;
  const auto log_level = tidepool::ParseLogLevel(absl::GetFlag(FLAGS_log_level));
  if (!log_level.has_value()) {
    return Usage(absl::StrCat("--log-level: '", absl::GetFlag(FLAGS_log_level), "' is not info, warning or error"));
  }
  tidepool::SetLogLevel(*log_level);
  options.flags = tidepool::ListFlags(kFlags);
  options.cache.memory_bytes = *memory;
  options.cache.memory_policy = absl::GetFlag(FLAGS_memory_policy);
  options.cache.slow_tier_retry = absl::GetFlag(FLAGS_slow_tier_retry);
  options.cache.disk_bytes = *disk;
  options.cache.disk_ttl = absl::GetFlag(FLAGS_disk_ttl);

  if (absl::GetFlag(FLAGS_validate_config)) {
    const absl::Status valid = tidepool::ValidateCacheServerOptions(options);
    return valid.ok() ? 0 : Usage(std::string(valid.message()));
  }

  // Signals are taken by sigwait below: block them before any thread exists.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  absl::StatusOr<std::unique_ptr<tidepool::CacheServer>> server = tidepool::CacheServer::Start(options);
  if (!server.ok()) {
    std::fprintf(stderr, "tidepool-cache: %s\n", std::string(server.status().message()).c_str());
    return server.status().code() == absl::StatusCode::kInvalidArgument ? 2 : 1;
  }
  if (const std::string file = absl::GetFlag(FLAGS_port_file); !file.empty()) {
    if (const absl::Status status = tidepool::WritePortFile(file, (*server)->port()); !status.ok()) {
      std::fprintf(stderr, "tidepool-cache: %s\n", std::string(status.message()).c_str());
      return 1;
    }
  }
  if (const std::string metrics = (*server)->metrics_address(); !metrics.empty()) {
    std::printf("metrics on http://%s/metrics\n", metrics.c_str());
  }
  std::printf("listening on %s\n", (*server)->address().c_str());
  std::fflush(stdout);
  int signal = 0;
  sigwait(&signals, &signal);
  TP_LOG(Info, "cache", "ending on signal ", signal);
  (*server)->Shutdown(absl::Seconds(5));
  return 0;
}
