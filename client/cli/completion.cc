#include "client/cli/completion.h"

#include <cstdio>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "base/man_page.h"

namespace tidepool::cli {
namespace {

// The words that may follow a command, as its details list them: lines that begin with one, or with WORD ARGUMENT, and
// go on after two spaces. Commands whose usage does not say WHAT have none.
std::vector<std::string> WordsOf(const Command& command) {
  std::vector<std::string> words;
  if (!absl::StartsWith(command.arguments, "WHAT")) {
    if (std::string(command.name) == "model") words.emplace_back("info");
    return words;
  }
  for (const auto& line : absl::StrSplit(command.details, '\n')) {
    const size_t spaces = line.find("  ");
    if (spaces == 0 || spaces == absl::string_view::npos ||
        line.find_first_not_of(' ', spaces) == absl::string_view::npos) {
      continue;
    }
    const std::string head(line.substr(0, line.find(' ')));
    const bool is_word = head.find_first_not_of("abcdefghijklmnopqrstuvwxyz") == std::string::npos;
    if (is_word && line.substr(0, spaces).find_first_of(".,;:") == absl::string_view::npos) words.push_back(head);
  }
  return words;
}

bool WantsFile(const FlagFacts& flag) {
  for (const char* end : {"file", "model", "dir", "tls-cert", "tls-key", "tls-ca", "out", "policies"}) {
    if (absl::EndsWith(flag.name, end)) return true;
  }
  return false;
}

std::string Options(const Command& command) {
  std::vector<std::string> options = {"--help"};
  if (!command.takes_all) {
    for (const FlagFacts& flag : ListFlags(command.flags)) {
      options.push_back(absl::StrCat("--", flag.name, flag.is_switch ? "" : "="));
    }
  }
  return absl::StrJoin(options, " ");
}

std::string Names(const std::vector<Command>& commands) {
  return absl::StrJoin(commands, " ", [](std::string* out, const Command& command) { out->append(command.name); });
}

std::string BashScript(const std::vector<Command>& commands) {
  std::string script = absl::StrCat(
      "# bash completion of tidepool: source <(tidepool completion bash)\n"
      "_tidepool() {\n"
      "  local word=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]} options= words=\n"
      "  # --flag=VALUE is three words to bash: the value is completed as a file.\n"
      "  if [[ $word == \"=\" || ${COMP_WORDS[COMP_CWORD-1]} == \"=\" ]]; then\n"
      "    COMPREPLY=($(compgen -f -- \"${word#=}\"))\n"
      "    return\n"
      "  fi\n"
      "  if ((COMP_CWORD == 1)); then\n"
      "    COMPREPLY=($(compgen -W \"",
      Names(commands), " help version\" -- \"$word\"))\n    return\n  fi\n  case $command in\n");
  for (const Command& command : commands) {
    absl::StrAppend(&script, "    ", command.name, ") options=\"", Options(command), "\" words=\"",
                    absl::StrJoin(WordsOf(command), " "), "\" ;;\n");
  }
  absl::StrAppend(&script, "    help) words=\"", Names(commands),
                  "\" ;;\n"
                  "  esac\n"
                  "  if [[ $word == -* ]]; then\n"
                  "    COMPREPLY=($(compgen -W \"$options\" -- \"$word\"))\n"
                  "    [[ ${COMPREPLY[0]} == *= ]] && compopt -o nospace\n"
                  "  elif ((COMP_CWORD == 2)) && [[ -n $words ]]; then\n"
                  "    COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
                  "  else\n"
                  "    COMPREPLY=($(compgen -f -- \"$word\"))\n"
                  "  fi\n"
                  "}\n"
                  "complete -F _tidepool tidepool\n");
  return script;
}

// Inside single quotes.
std::string Quoted(const std::string& text) { return absl::StrReplaceAll(text, {{"'", "'\\''"}}); }

std::string ZshText(const std::string& text) {
  return absl::StrReplaceAll(Quoted(text), {{"[", "("}, {"]", ")"}, {":", "\\:"}, {"\n", " "}});
}

std::string ZshScript(const std::vector<Command>& commands) {
  std::string script =
      "#compdef tidepool\n"
      "# zsh completion of tidepool: tidepool completion zsh > a file _tidepool in your $fpath\n"
      "_tidepool() {\n"
      "  local -a commands\n"
      "  commands=(\n";
  for (const Command& command : commands) {
    absl::StrAppend(&script, "    '", command.name, ":", ZshText(command.summary), "'\n");
  }
  absl::StrAppend(&script,
                  "    'help:flags of a command'\n"
                  "    'version:prints it'\n"
                  "  )\n"
                  "  if ((CURRENT == 2)); then\n"
                  "    _describe command commands\n"
                  "    return\n"
                  "  fi\n"
                  "  local command=$words[2]\n"
                  "  shift words\n"
                  "  ((CURRENT--))\n"
                  "  case $command in\n");
  for (const Command& command : commands) {
    absl::StrAppend(&script, "    ", command.name, ")\n      _arguments '--help[flags and their defaults]'");
    if (!command.takes_all) {
      for (const FlagFacts& flag : ListFlags(command.flags)) {
        absl::StrAppend(&script, " \\\n        '--", flag.name, flag.is_switch ? "" : "=", "[", ZshText(flag.help),
                        "]");
        if (!flag.is_switch) absl::StrAppend(&script, ":value:", WantsFile(flag) ? "_files" : "");
        absl::StrAppend(&script, "'");
      }
    }
    const std::vector<std::string> words = WordsOf(command);
    if (!words.empty()) absl::StrAppend(&script, " \\\n        '1:what:(", absl::StrJoin(words, " "), ")'");
    absl::StrAppend(&script, " \\\n        '*:file:_files'\n      ;;\n");
  }
  absl::StrAppend(&script, "    help) _describe command commands ;;\n  esac\n}\n_tidepool \"$@\"\n");
  return script;
}

std::string FishScript(const std::vector<Command>& commands) {
  std::string script = "# fish completion of tidepool: tidepool completion fish | source\n";
  const std::string first = "-n __fish_use_subcommand";
  for (const Command& command : commands) {
    absl::StrAppend(&script, "complete -c tidepool -f ", first, " -a ", command.name, " -d '", Quoted(command.summary),
                    "'\n");
  }
  absl::StrAppend(&script, "complete -c tidepool -f ", first, " -a 'help version'\n");
  for (const Command& command : commands) {
    const std::string of = absl::StrCat("complete -c tidepool -n '__fish_seen_subcommand_from ", command.name, "' ");
    for (const std::string& word : WordsOf(command)) absl::StrAppend(&script, of, "-f -a ", word, "\n");
    if (command.takes_all) continue;
    for (const FlagFacts& flag : ListFlags(command.flags)) {
      absl::StrAppend(&script, of, "-l ", flag.name,
                      flag.is_switch    ? ""
                      : WantsFile(flag) ? " -r -F"
                                        : " -x",
                      " -d '", Quoted(absl::StrReplaceAll(flag.help, {{"\n", " "}})), "'\n");
    }
  }
  return script;
}

const char kExitCodes[] =
    "0 ok, 1 failed, 2 usage or a value that the service refused, 3 the service cannot be reached.";

int Completion(const Arguments& arguments) {
  if (arguments.size() != 1) return UsageError("completion: bash, zsh or fish is missing");
  const absl::StatusOr<std::string> script = CompletionScript(arguments[0], Commands());
  if (!script.ok()) return UsageError(script.status());
  std::fputs(script->c_str(), stdout);
  return kOk;
}

int Man(const Arguments& arguments) {
  if (arguments.size() > 1) return UsageError(absl::StrCat("man: unexpected argument '", arguments[1], "'"));
  const std::vector<Command> commands = Commands();
  const Command* command = nullptr;
  for (const Command& one : commands) {
    if (!arguments.empty() && arguments[0] == one.name) command = &one;
  }
  if (!arguments.empty() && command == nullptr) {
    return UsageError(absl::StrCat("man: '", arguments[0], "' is not a command"));
  }
  std::fputs(ManPage(commands, command).c_str(), stdout);
  return kOk;
}

}  // namespace

absl::StatusOr<std::string> CompletionScript(const std::string& shell, const std::vector<Command>& commands) {
  if (shell == "bash") return BashScript(commands);
  if (shell == "zsh") return ZshScript(commands);
  if (shell == "fish") return FishScript(commands);
  return absl::InvalidArgumentError(absl::StrCat("completion: '", shell, "' is not bash, zsh or fish"));
}

std::string ManPage(const std::vector<Command>& commands, const Command* command) {
  ManPageContent page;
  page.exit_codes = kExitCodes;
  if (command != nullptr) {
    page.name = absl::StrCat("tidepool-", command->name);
    page.summary = command->summary;
    page.usage = absl::StrCat("tidepool ", command->name, " ", command->arguments);
    page.sections = {{"DESCRIPTION", command->details}, {"SEE ALSO", "tidepool(1)"}};
    if (!command->takes_all) page.flags = ListFlags(command->flags);
    return FormatManPage(page);
  }
  page.name = "tidepool";
  page.summary = "long-context inference from little device memory";
  page.usage = "tidepool COMMAND [arguments] [flags]";
  std::string list;
  for (const Command& one : commands) absl::StrAppend(&list, one.name, " ", one.arguments, "\n    ", one.summary, "\n");
  page.sections = {{"COMMANDS", list},
                   {"SEE ALSO",
                    "tidepool-COMMAND(1) of each command, tidepool-cache(1), tidepool-worker(1), "
                    "tidepool-http(1)"}};
  return FormatManPage(page);
}

Command CompletionCommand() {
  return {.name = "completion",
          .arguments = "bash | zsh | fish",
          .summary = "a script for the shell's completion",
          .details =
              "bash: source <(tidepool completion bash). zsh: as a file _tidepool in $fpath. fish: tidepool\n"
              "completion fish | source. cmake --install puts them where the shells look.",
          .flags = {"--no-flags"},
          .run = Completion};
}

Command ManCommand() {
  return {.name = "man",
          .arguments = "[COMMAND]",
          .summary = "a manual page, for man -l -",
          .details = "tidepool man admin | man -l -. The servers print theirs with --man.",
          .flags = {"--no-flags"},
          .run = Man};
}

}  // namespace tidepool::cli
