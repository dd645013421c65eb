// `tidepool completion` and `tidepool man`: made of the commands and their flags, so that they cannot drift from them.
#ifndef TIDEPOOL_CLIENT_CLI_COMPLETION_H_
#define TIDEPOOL_CLIENT_CLI_COMPLETION_H_

#include <string>
#include <vector>

#include "client/cli/cli.h"

namespace tidepool::cli {

// For bash, zsh or fish. InvalidArgument: another shell.
absl::StatusOr<std::string> CompletionScript(const std::string& shell, const std::vector<Command>& commands);

// In the format of man(7): of the program, or (not null) of one command.
std::string ManPage(const std::vector<Command>& commands, const Command* command);

}  // namespace tidepool::cli

#endif  // TIDEPOOL_CLIENT_CLI_COMPLETION_H_
