// tidepool: the command line.
#include <cstdio>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/flags.h"
#include "client/cli/cli.h"

namespace tidepool::cli {
namespace {

constexpr char kHelp[] =
    "tidepool: long-context inference from little device memory.\n"
    "\n"
    "  tidepool generate [--prompt TEXT | --prompt-file FILE | < FILE]   one answer, streamed\n"
    "  tidepool chat                                                     a conversation; Ctrl-C ends an answer, Ctrl-D "
    "leaves\n"
    "  tidepool serve --model FILE.gguf --data-dir DIR                   worker and cache in one process\n"
    "  tidepool admin stats [--of-worker]                                what the cache service (or a worker) holds "
    "and does\n"
    "  tidepool admin sessions | session ID | drop ID                    stored sessions\n"
    "  tidepool model info FILE.gguf                                     what a model file holds\n"
    "  tidepool version\n"
    "\n"
    "Exit codes: 0 ok, 1 failed, 2 usage, 3 the service cannot be reached.\n"
    "\n"
    "Flags:\n";

int Main(int argc, char** argv) {
  const absl::StatusOr<std::vector<std::string>> rest = ParseFlags(argc, argv);
  if (!rest.ok()) return UsageError(std::string(rest.status().message()));
  for (const std::string& argument : *rest) {
    if (argument != "--help" && argument != "help") continue;
    std::printf("%s%s", kHelp, FlagHelp({"client/cli", "worker_flags"}).c_str());
    return kOk;
  }
  if (rest->empty()) return UsageError("a command is missing");
  const std::string& command = rest->front();
  const Arguments arguments(rest->begin() + 1, rest->end());
  if (command == "generate") return Generate(arguments);
  if (command == "chat") return Chat(arguments);
  if (command == "serve") return Serve(arguments);
  if (command == "admin") return Admin(arguments);
  if (command == "model") return ModelCommand(arguments);
  if (command == "version") {
    std::printf("tidepool %s\n", TIDEPOOL_VERSION);
    return kOk;
  }
  return UsageError(absl::StrCat("'", command, "' is not a command"));
}

}  // namespace
}  // namespace tidepool::cli

int main(int argc, char** argv) { return tidepool::cli::Main(argc, argv); }
