// Command lines of our programs: flags are ABSL_FLAGs, parsed here so that every mistake is a usage error (exit code 2)
// that names the flag, and - and _ mean the same between the words of a name.
#ifndef TIDEPOOL_BASE_FLAGS_H_
#define TIDEPOOL_BASE_FLAGS_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace tidepool {

// Which flags a program, or one of its commands, takes: parts of the paths of the files that define them, or single
// flags as "--name".
using FlagSet = std::vector<std::string>;

// A flag named --flags-file, where a program has one, is read where it stands: each line of the file is --name=value,
// empty or a # comment; later flags win. At most 64 KiB, and no file names another.
//
// Sets the flags and returns the other arguments; argv[0] is skipped. --name=value, --name value, --switch, --noswitch;
// -- ends the flags; a list given again goes on. --help and --man give the arguments "--help" and "--man" back.
// InvalidArgument naming what is not known (or not in `known`, unless that is empty) or not allowed.
absl::StatusOr<std::vector<std::string>> ParseFlags(int argc, char** argv, const FlagSet& known = {});

// The flags of `known` by name, with defaults, for --help.
std::string FlagHelp(const FlagSet& known);

// One flag as it stands.
struct FlagFacts {
  std::string name;  // with dashes, without the two in front
  std::string value, default_value;
  std::string help;
  bool is_switch = false;
};
// Those of `known` by name; all that there are, also those of libraries, when it is empty.
std::vector<FlagFacts> ListFlags(const FlagSet& known);

// Writes the port, in decimal and a newline, so that a reader never sees half of it. InvalidArgument naming
// --port-file.
absl::Status WritePortFile(const std::string& path, int port);

}  // namespace tidepool

#endif  // TIDEPOOL_BASE_FLAGS_H_
