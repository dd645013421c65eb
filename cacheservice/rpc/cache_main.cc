// tidepool-cache: keeps evicted keys and values, stored prefixes and sessions for workers.
#include <csignal>
#include <cstdio>
#include <fstream>
#include <string>
#include <thread>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/flags/usage_config.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/byte_size.h"
#include "base/log.h"
#include "cacheservice/rpc/cache_server.h"

ABSL_FLAG(std::string, listen, "127.0.0.1:7070", "host:port (port 0: any free one) or unix:PATH");
ABSL_FLAG(std::string, data_dir, "", "directory of the database; made if absent, one process at a time. Required");
ABSL_FLAG(std::string, memory_bytes, "1GiB", "block values in memory: 256KiB to 16TiB");
ABSL_FLAG(std::string, disk_bytes, "8GiB", "block values on disk: 16MiB to 1024TiB");
ABSL_FLAG(int, threads, 4, "threads that may wait for the disk: 1 to 64");
ABSL_FLAG(bool, insecure, false, "allow plain text on other than loopback addresses");
ABSL_FLAG(std::string, port_file, "", "file that gets the port, in decimal, when the service listens");

namespace {

int Usage(const std::string& message) {
  std::fprintf(stderr, "tidepool-cache: %s\nTry: tidepool-cache --help\n", message.c_str());
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "keeps evicted keys and values, stored prefixes and sessions for workers.\n"
      "  tidepool-cache --data_dir=DIR [flags]\n"
      "Exit codes: 0 ended by SIGTERM or SIGINT, 1 failed, 2 usage.");
  absl::FlagsUsageConfig usage;
  usage.contains_help_flags = [](absl::string_view file) { return absl::StrContains(file, "cache_main"); };
  absl::SetFlagsUsageConfig(usage);
  // Flags may be written with - or _ between their words.
  for (int i = 1; i < argc; ++i) {
    if (argv[i][0] != '-' || argv[i][1] != '-') continue;
    for (char* c = argv[i] + 2; *c != '\0' && *c != '='; ++c) {
      if (*c == '-') *c = '_';
    }
  }
  const std::vector<char*> rest = absl::ParseCommandLine(argc, argv);
  if (rest.size() > 1) return Usage(absl::StrCat("unexpected argument '", rest[1], "'"));

  tidepool::CacheServerOptions options;
  options.listen = absl::GetFlag(FLAGS_listen);
  options.insecure = absl::GetFlag(FLAGS_insecure);
  options.threads = absl::GetFlag(FLAGS_threads);
  options.cache.data_dir = absl::GetFlag(FLAGS_data_dir);
  if (options.cache.data_dir.empty()) return Usage("--data_dir is required");
  const auto memory = tidepool::ParseByteSize(absl::GetFlag(FLAGS_memory_bytes));
  if (!memory.has_value())
    return Usage(absl::StrCat("--memory_bytes: '", absl::GetFlag(FLAGS_memory_bytes), "' is not a size such as 64MiB"));
  const auto disk = tidepool::ParseByteSize(absl::GetFlag(FLAGS_disk_bytes));
  if (!disk.has_value())
    return Usage(absl::StrCat("--disk_bytes: '", absl::GetFlag(FLAGS_disk_bytes), "' is not a size such as 8GiB"));
  options.cache.memory_bytes = *memory;
  options.cache.disk_bytes = *disk;

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
    std::ofstream out(file + ".tmp");
    out << (*server)->port() << "\n";
    out.close();
    if (!out || std::rename((file + ".tmp").c_str(), file.c_str()) != 0) {
      std::fprintf(stderr, "tidepool-cache: --port_file: cannot write %s\n", file.c_str());
      return 1;
    }
  }
  std::printf("listening on %s\n", (*server)->address().c_str());
  std::fflush(stdout);
  int signal = 0;
  sigwait(&signals, &signal);
  TP_LOG(Info, "cache", "ending on signal ", signal);
  (*server)->Shutdown(absl::Seconds(5));
  return 0;
}
