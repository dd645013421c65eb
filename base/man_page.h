// Manual pages in the format of man(7), made of flag definitions.
#ifndef TIDEPOOL_BASE_MAN_PAGE_H_
#define TIDEPOOL_BASE_MAN_PAGE_H_

#include <string>
#include <string_view>
#include <vector>

#include "base/flags.h"

namespace tidepool {

struct ManSection {
  std::string title;
  std::string text;  // lines as they are; empty ones part paragraphs
};

struct ManPageContent {
  std::string name;     // of the page, such as tidepool-cache
  std::string summary;  // one line
  std::string usage;
  std::vector<ManSection> sections;  // between usage and flags
  std::vector<FlagFacts> flags;
  std::string exit_codes;
};

// Section 1.
std::string FormatManPage(const ManPageContent& content);

}  // namespace tidepool

#endif  // TIDEPOOL_BASE_MAN_PAGE_H_
