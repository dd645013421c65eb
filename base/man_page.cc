#include "base/man_page.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"

namespace tidepool {
namespace {

// What is text must not be taken for a request (a line that begins with . or ') or an escape.
std::string Escaped(const std::string& text) {
  std::string out = absl::StrReplaceAll(text, {{"\\", "\\e"}, {"-", "\\-"}});
  if (!out.empty() && (out[0] == '.' || out[0] == '\'')) out.insert(0, "\\&");
  return out;
}

void AddText(const std::string& text, std::string* page) {
  for (const auto& line : absl::StrSplit(text, '\n')) {
    const std::string escaped = Escaped(std::string(line));
    absl::StrAppend(page, escaped.empty() ? ".PP" : escaped, "\n");
  }
}

}  // namespace

std::string FormatManPage(const ManPageContent& content) {
  std::string page =
      absl::StrCat(".TH ", absl::AsciiStrToUpper(content.name), " 1\n.SH NAME\n", Escaped(content.name), " \\- ",
                   Escaped(content.summary), "\n.SH SYNOPSIS\n.nf\n", Escaped(content.usage), "\n.fi\n");
  for (const ManSection& section : content.sections) {
    if (section.text.empty()) continue;
    absl::StrAppend(&page, ".SH ", section.title, "\n.nf\n");
    AddText(section.text, &page);
    absl::StrAppend(&page, ".fi\n");
  }
  if (!content.flags.empty()) absl::StrAppend(&page, ".SH OPTIONS\n");
  for (const FlagFacts& flag : content.flags) {
    absl::StrAppend(&page, ".TP\n\\fB\\-\\-", Escaped(flag.name), "\\fR", flag.default_value.empty() ? "" : "=",
                    Escaped(flag.default_value), "\n");
    AddText(flag.help, &page);
  }
  if (!content.exit_codes.empty()) {
    absl::StrAppend(&page, ".SH EXIT STATUS\n");
    AddText(content.exit_codes, &page);
  }
  return page;
}

}  // namespace tidepool
