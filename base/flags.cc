#include "base/flags.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>
#include <set>

#include "absl/flags/commandlineflag.h"
#include "absl/flags/reflection.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace tidepool {
namespace {

bool Contains(const FlagSet& known, const absl::CommandLineFlag& flag) {
  const std::string path = flag.Filename();
  const std::string option = absl::StrCat("--", absl::StrReplaceAll(flag.Name(), {{"_", "-"}}));
  return std::any_of(known.begin(), known.end(), [&](const std::string& entry) {
    return absl::StartsWith(entry, "--") ? entry == option : absl::StrContains(path, entry);
  });
}

absl::CommandLineFlag* Find(const FlagSet& known, std::string_view name) {
  absl::CommandLineFlag* flag = absl::FindCommandLineFlag(absl::string_view(name.data(), name.size()));
  return flag != nullptr && (known.empty() || Contains(known, *flag)) ? flag : nullptr;
}

}  // namespace

absl::StatusOr<std::vector<std::string>> ParseFlags(int argc, char** argv, const FlagSet& known) {
  std::vector<std::string> rest;
  std::set<std::string> given_lists;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--") {
      rest.insert(rest.end(), argv + i + 1, argv + argc);
      break;
    }
    if (argument == "-h" || argument == "--help") {
      rest.push_back("--help");
      continue;
    }
    if (argument.size() < 3 || argument.substr(0, 2) != "--") {
      rest.push_back(argument);
      continue;
    }
    const size_t equals = argument.find('=');
    const std::string given = argument.substr(0, equals);
    const std::string name = absl::StrReplaceAll(given.substr(2), {{"-", "_"}});
    absl::CommandLineFlag* flag = Find(known, name);
    std::string value;
    if (flag == nullptr && equals == std::string::npos && absl::StartsWith(name, "no")) {
      flag = Find(known, name.substr(2));
      if (flag != nullptr && !flag->IsOfType<bool>()) flag = nullptr;
      value = "false";
    } else if (flag != nullptr && equals != std::string::npos) {
      value = argument.substr(equals + 1);
    } else if (flag != nullptr && flag->IsOfType<bool>()) {
      value = "true";
    } else if (flag != nullptr) {
      if (i + 1 == argc) return absl::InvalidArgumentError(absl::StrCat(given, ": needs a value"));
      value = argv[++i];
    }
    if (flag == nullptr) return absl::InvalidArgumentError(absl::StrCat(given, ": is not a flag of this program"));
    if (flag->IsOfType<std::vector<std::string>>() && !given_lists.insert(name).second) {
      value = absl::StrCat(flag->CurrentValue(), ",", value);  // a list that is given again goes on
    }
    std::string error;
    if (!flag->ParseFrom(value, &error)) {
      return absl::InvalidArgumentError(absl::StrCat(given, ": '", value, "' is not allowed", error.empty() ? "" : ": ",
                                                     error, " (", flag->Help(), ")"));
    }
  }
  return rest;
}

std::string FlagHelp(const FlagSet& known) {
  std::map<std::string, const absl::CommandLineFlag*> flags;
  for (const auto& [name, flag] : absl::GetAllFlags()) {
    if (Contains(known, *flag)) flags[std::string(name)] = flag;
  }
  std::string help;
  for (const auto& [name, flag] : flags) {
    const std::string standard = flag->DefaultValue();
    absl::StrAppend(&help, "  --", absl::StrReplaceAll(name, {{"_", "-"}}), standard.empty() ? "" : "=", standard,
                    "\n        ", flag->Help(), "\n");
  }
  return help;
}

absl::Status WritePortFile(const std::string& path, int port) {
  const std::string unfinished = path + ".tmp";
  std::ofstream out(unfinished);
  out << port << "\n";
  out.close();
  if (out && std::rename(unfinished.c_str(), path.c_str()) == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--port-file: cannot write ", path));
}

}  // namespace tidepool
