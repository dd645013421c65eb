#include "base/flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "tests/support/temp_dir.h"

ABSL_FLAG(std::string, flags_file, "", "file of flags");
ABSL_FLAG(std::string, sea, "calm", "for tests");
ABSL_FLAG(int, depth, 1, "for tests");
ABSL_FLAG(bool, tidal, false, "for tests");
ABSL_FLAG(std::vector<std::string>, fish, {}, "for tests");

namespace tidepool {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class FlagsTest : public testing::Test {
 protected:
  void SetUp() override {
    absl::SetFlag(&FLAGS_sea, "calm");
    absl::SetFlag(&FLAGS_depth, 1);
    absl::SetFlag(&FLAGS_tidal, false);
    absl::SetFlag(&FLAGS_fish, {});
  }
  static absl::StatusOr<std::vector<std::string>> Parse(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "program");
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    return ParseFlags(static_cast<int>(argv.size()), argv.data());
  }
  std::string File(const std::string& text) const {
    std::ofstream(dir_.File("flags")) << text;
    return "--flags-file=" + dir_.File("flags");
  }
  test::TempDir dir_;
};

TEST_F(FlagsTest, FlagsAreSetAndTheRestComesBack) {
  EXPECT_THAT(*Parse({"--sea=wild", "a", "--depth", "7", "--tidal", "b", "--", "--sea=x"}),
              ElementsAre("a", "b", "--sea=x"));
  EXPECT_EQ(absl::GetFlag(FLAGS_sea), "wild");
  EXPECT_EQ(absl::GetFlag(FLAGS_depth), 7);
  EXPECT_TRUE(absl::GetFlag(FLAGS_tidal));
  EXPECT_THAT(*Parse({"--notidal"}), IsEmpty());
  EXPECT_FALSE(absl::GetFlag(FLAGS_tidal));
}

TEST_F(FlagsTest, AFileStandsForItsLinesWhereItIsNamed) {
  const std::string file = File("# of the cluster\n\n  --sea=wild  \n--tidal\n--fish=eel\n--depth=3\n");
  EXPECT_THAT(*Parse({"--depth=2", file, "--sea=deep", "--fish=cod", "rest"}), ElementsAre("rest"));
  EXPECT_EQ(absl::GetFlag(FLAGS_sea), "deep") << "later flags win";
  EXPECT_EQ(absl::GetFlag(FLAGS_depth), 3);
  EXPECT_TRUE(absl::GetFlag(FLAGS_tidal));
  EXPECT_THAT(absl::GetFlag(FLAGS_fish), ElementsAre("eel", "cod"));
}

TEST_F(FlagsTest, MistakesInAFileAreNamedWithTheirLine) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"--sea=x\n--sae=x\n", ":2: --sae: is not a flag"},
      {"--depth=deep\n", ":1: --depth: 'deep' is not allowed"},
      {"\n--depth\n", ":2: --depth: needs a value"},
      {"depth=3\n", ":1: is not --name=value"},
      {"--\n", ":1: is not --name=value"},
      {"--flags-file=other\n", "named by another flags file"},
      {std::string(70'000, '\n'), "larger than 65536 bytes"},
  };
  for (const auto& [text, message] : cases) {
    const absl::Status status = Parse({File(text)}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
    EXPECT_THAT(std::string(status.message()), HasSubstr("--flags-file"));
  }
  for (const std::string& path : {dir_.File("absent"), dir_.path()}) {
    EXPECT_THAT(std::string(Parse({"--flags-file=" + path}).status().message()), HasSubstr("cannot be read")) << path;
  }
}

}  // namespace
}  // namespace tidepool
