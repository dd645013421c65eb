#include "base/man_page.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tidepool {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(ManPageTest, FlagsAndSectionsAreWrittenForMan) {
  const std::string page = FormatManPage({.name = "a-tool",
                                          .summary = "does things",
                                          .usage = "a-tool [flags]",
                                          .sections = {{"DESCRIPTION", "one\n\ntwo"}, {"EMPTY", ""}},
                                          .flags = {{.name = "size", .default_value = "3", .help = "how many"},
                                                    {.name = "quiet", .help = "says less", .is_switch = true}},
                                          .exit_codes = "0 ok"});
  EXPECT_THAT(page, HasSubstr(".TH A-TOOL 1\n.SH NAME\na\\-tool \\- does things\n"));
  EXPECT_THAT(page, HasSubstr(".SH DESCRIPTION\n.nf\none\n.PP\ntwo\n.fi\n"));
  EXPECT_THAT(page, HasSubstr(".TP\n\\fB\\-\\-size\\fR=3\nhow many\n"));
  EXPECT_THAT(page, HasSubstr(".TP\n\\fB\\-\\-quiet\\fR\nsays less\n"));
  EXPECT_THAT(page, HasSubstr(".SH EXIT STATUS\n0 ok\n"));
  EXPECT_THAT(page, Not(HasSubstr("EMPTY")));
}

TEST(ManPageTest, TextIsNoRequest) {
  const std::string page = FormatManPage({.name = "x",
                                          .summary = "",
                                          .usage = "",
                                          .sections = {{"DESCRIPTION", ".so /etc/passwd\n'br\na\\fBb"}},
                                          .flags = {},
                                          .exit_codes = ""});
  EXPECT_THAT(page, HasSubstr("\n\\&.so /etc/passwd\n\\&'br\na\\efBb\n"));
}

}  // namespace
}  // namespace tidepool
