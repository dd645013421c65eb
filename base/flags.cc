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
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/status_macros.h"

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

constexpr size_t kMaxFileBytes = 64 << 10;

// Reads a command line, and the flags files that it names.
class FlagReader {
 public:
  explicit FlagReader(const FlagSet& known) : known_(known) {}

  absl::StatusOr<std::vector<std::string>> Read(const std::vector<std::string>& arguments) {
    std::vector<std::string> rest;
    for (size_t i = 0; i < arguments.size(); ++i) {
      const std::string& argument = arguments[i];
      if (argument == "--") {
        rest.insert(rest.end(), arguments.begin() + static_cast<int64_t>(i) + 1, arguments.end());
        break;
      }
      if (argument == "-h" || argument == "--help") {
        rest.push_back("--help");
      } else if (argument == "--man") {
        rest.push_back(argument);
      } else if (argument.size() < 3 || argument.substr(0, 2) != "--") {
        rest.push_back(argument);
      } else {
        TP_RETURN_IF_ERROR(Set(argument, i + 1 < arguments.size() ? &arguments[i + 1] : nullptr, &i));
      }
    }
    return rest;
  }

 private:
  // One flag; takes the next argument, and counts it, where that is the value.
  absl::Status Set(const std::string& argument, const std::string* next, size_t* index) {
    const size_t equals = argument.find('=');
    const std::string given = argument.substr(0, equals);
    const std::string name = absl::StrReplaceAll(given.substr(2), {{"-", "_"}});
    absl::CommandLineFlag* flag = Find(known_, name);
    std::string value;
    if (flag == nullptr && equals == std::string::npos && absl::StartsWith(name, "no")) {
      flag = Find(known_, name.substr(2));
      if (flag != nullptr && !flag->IsOfType<bool>()) flag = nullptr;
      value = "false";
    } else if (flag != nullptr && equals != std::string::npos) {
      value = argument.substr(equals + 1);
    } else if (flag != nullptr && flag->IsOfType<bool>()) {
      value = "true";
    } else if (flag != nullptr) {
      if (next == nullptr) return absl::InvalidArgumentError(absl::StrCat(given, ": needs a value"));
      value = *next;
      ++*index;
    }
    if (flag == nullptr) return absl::InvalidArgumentError(absl::StrCat(given, ": is not a flag of this program"));
    if (flag->IsOfType<std::vector<std::string>>() && !given_lists_.insert(name).second) {
      value = absl::StrCat(flag->CurrentValue(), ",", value);  // a list that is given again goes on
    }
    std::string error;
    if (!flag->ParseFrom(value, &error)) {
      return absl::InvalidArgumentError(absl::StrCat(given, ": '", value, "' is not allowed", error.empty() ? "" : ": ",
                                                     error, " (", flag->Help(), ")"));
    }
    return name == "flags_file" ? ReadFile(value) : absl::OkStatus();
  }

  absl::Status ReadFile(const std::string& path) {
    auto bad = [&](auto... what) { return absl::InvalidArgumentError(absl::StrCat("--flags-file: ", path, what...)); };
    if (in_file_) return bad(": is named by another flags file");
    std::ifstream in(path);
    std::string text(kMaxFileBytes + 1, 0);
    if (!in.is_open() || in.read(text.data(), static_cast<std::streamsize>(text.size())).bad()) {
      return bad(": cannot be read");
    }
    text.resize(static_cast<size_t>(in.gcount()));
    if (text.size() > kMaxFileBytes) return bad(": is larger than ", kMaxFileBytes, " bytes");
    in_file_ = true;
    int number = 0;
    for (absl::string_view line : absl::StrSplit(text, '\n')) {
      ++number;
      line = absl::StripAsciiWhitespace(line);
      if (line.empty() || line.front() == '#') continue;
      if (!absl::StartsWith(line, "--") || line.size() < 3) return bad(":", number, ": is not --name=value");
      size_t index = 0;
      if (absl::Status status = Set(std::string(line), nullptr, &index); !status.ok()) {
        return bad(":", number, ": ", status.message());
      }
    }
    in_file_ = false;
    return absl::OkStatus();
  }

  const FlagSet& known_;
  std::set<std::string> given_lists_;
  bool in_file_ = false;
};

}  // namespace

absl::StatusOr<std::vector<std::string>> ParseFlags(int argc, char** argv, const FlagSet& known) {
  return FlagReader(known).Read({argv + 1, argv + argc});
}

std::vector<FlagFacts> ListFlags(const FlagSet& known) {
  std::map<std::string, FlagFacts> flags;
  for (const auto& [name, flag] : absl::GetAllFlags()) {
    if (!known.empty() && !Contains(known, *flag)) continue;
    FlagFacts& facts = flags[std::string(name)];
    facts.name = absl::StrReplaceAll(name, {{"_", "-"}});
    facts.value = flag->CurrentValue();
    facts.default_value = flag->DefaultValue();
    facts.help = flag->Help();
    facts.is_switch = flag->IsOfType<bool>();
  }
  std::vector<FlagFacts> list;
  for (auto& [name, facts] : flags) list.push_back(std::move(facts));
  return list;
}

std::string FlagHelp(const FlagSet& known) {
  std::string help;
  for (const FlagFacts& flag : ListFlags(known)) {
    absl::StrAppend(&help, "  --", flag.name, flag.default_value.empty() ? "" : "=", flag.default_value, "\n        ",
                    flag.help, "\n");
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
