#include "client/cli/completion.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/support/process.h"
#include "tests/support/temp_dir.h"

namespace tidepool::cli {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

// What bash offers for the last of the words.
std::string Complete(const std::string& words, int index) {
  const auto script = CompletionScript("bash", Commands());
  EXPECT_TRUE(script.ok());
  const std::string ask = *script + "\nCOMP_WORDS=(" + words + ")\nCOMP_CWORD=" + std::to_string(index) +
                          "\ncompopt() { :; }\n_tidepool\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n";
  const test::ProgramResult result = test::RunProgram({"bash", "--norc", "-s"}, ask);
  EXPECT_EQ(result.exit, test::ExitStatus::Exited(0)) << result.err;
  EXPECT_EQ(result.err, "");
  return result.out;
}

TEST(CompletionTest, BashOffersCommandsWhatTheyTakeAndTheirFlags) {
  EXPECT_EQ(Complete("tidepool ad", 1), "admin\n");
  EXPECT_THAT(Complete("tidepool admin ''", 2), AllOf(HasSubstr("explain\n"), HasSubstr("top\n"), HasSubstr("quota\n"),
                                                      HasSubstr("config\n"), Not(HasSubstr("Asks"))));
  EXPECT_EQ(Complete("tidepool admin --memory-q", 2), "--memory-quota=\n");
  EXPECT_EQ(Complete("tidepool admin --onc", 2), "--once\n") << "a switch takes no value";
  EXPECT_EQ(Complete("tidepool generate --no-such", 2), "\n");
  EXPECT_EQ(Complete("tidepool help doc", 2), "doctor\n");
}

TEST(CompletionTest, EveryCommandAndFlagIsInEveryShellsScript) {
  for (const char* shell : {"bash", "zsh", "fish"}) {
    const auto script = CompletionScript(shell, Commands());
    ASSERT_TRUE(script.ok()) << script.status();
    for (const Command& command : Commands()) {
      EXPECT_THAT(*script, HasSubstr(command.name));
      if (command.takes_all) continue;
      for (const FlagFacts& flag : ListFlags(command.flags)) EXPECT_THAT(*script, HasSubstr(flag.name)) << shell;
    }
  }
  EXPECT_EQ(CompletionScript("csh", Commands()).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ManPageTest, APageHasTheFlagsAndNothingThatTroffTakesForItsOwn) {
  for (const Command& command : Commands()) {
    const std::string page = ManPage(Commands(), &command);
    EXPECT_THAT(page, HasSubstr(".SH SYNOPSIS"));
    EXPECT_THAT(page, HasSubstr(".SH EXIT STATUS"));
    const bool has_flags = !command.takes_all && !ListFlags(command.flags).empty();
    EXPECT_EQ(page.find(".SH OPTIONS") != std::string::npos, has_flags) << command.name;
  }
  EXPECT_THAT(ManPage(Commands(), nullptr), AllOf(HasSubstr(".TH TIDEPOOL 1"), HasSubstr("doctor")));
  const Command admin = AdminCommand();
  const std::string page = ManPage(Commands(), &admin);
  EXPECT_THAT(page, AllOf(HasSubstr(".TH TIDEPOOL-ADMIN 1"), HasSubstr("\\-\\-memory\\-quota")));
}

}  // namespace
}  // namespace tidepool::cli
