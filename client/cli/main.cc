// tidepool: the command line.
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/mutex_checks.h"
#include "client/cli/cli.h"

namespace tidepool::cli {
namespace {

constexpr char kExitCodes[] =
    "Exit codes: 0 ok, 1 failed, 2 usage or a value that the service refused, 3 the service cannot be reached.\n";

const Command* Find(const std::string& name) {
  static const std::vector<Command> commands = Commands();
  for (const Command& command : commands) {
    if (name == command.name) return &command;
  }
  return nullptr;
}

void PrintLine(const std::string& usage, const char* summary) {
  std::printf("  tidepool %-57s %s\n", usage.c_str(), summary);
}

int PrintHelp() {
  std::printf("tidepool: long-context inference from little device memory.\n\n");
  for (const Command& command : Commands())
    PrintLine(absl::StrCat(command.name, " ", command.arguments), command.summary);
  PrintLine("help [COMMAND]", "a command's flags, with units and defaults");
  PrintLine("version", "prints it");
  std::printf("\n%s", kExitCodes);
  return kOk;
}

int PrintHelp(const Command& command) {
  std::printf("tidepool %s: %s.\n\n  tidepool %s %s\n\n", command.name, command.summary, command.name,
              command.arguments);
  if (command.details[0] != '\0') std::printf("%s\n\n", command.details);
  std::printf("%s\n%s", FlagHelp(command.flags).c_str(), kExitCodes);
  return kOk;
}

int Main(int argc, char** argv) {
  if (argc < 2) return UsageError("a command is missing");
  const std::string name = argv[1];
  if (name == "--help" || name == "-h") return PrintHelp();
  if (name == "help") {
    if (argc == 2) return PrintHelp();
    const Command* command = Find(argv[2]);
    return command == nullptr ? UsageError(absl::StrCat("'", argv[2], "' is not a command")) : PrintHelp(*command);
  }
  if (name == "version" || name == "--version") {
    if (argc > 2) return UsageError(absl::StrCat("version: unexpected argument '", argv[2], "'"));
    std::printf("tidepool %s\n", TIDEPOOL_VERSION);
    return kOk;
  }
  const Command* command = Find(name);
  if (command == nullptr) return UsageError(absl::StrCat("'", name, "' is not a command"));
  if (command->takes_all && (argc < 3 || std::string_view(argv[2]) != "--help")) {
    return command->run(Arguments(argv + 2, argv + argc));
  }
  const absl::StatusOr<Arguments> arguments = ParseFlags(argc - 1, argv + 1, command->flags);
  if (!arguments.ok()) return UsageError(arguments.status());
  for (const std::string& argument : *arguments) {
    if (argument == "--help") return PrintHelp(*command);
  }
  return command->run(*arguments);
}

}  // namespace
}  // namespace tidepool::cli

int main(int argc, char** argv) {
  tidepool::SkipMutexChecks();
  return tidepool::cli::Main(argc, argv);
}
