#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "worker/engine/stop_condition.h"

namespace tidepool {
namespace {

using ::testing::HasSubstr;

constexpr int32_t kEos = 2, kEot = 3;

struct Outcome {
  std::string text;
  StopReason reason = StopReason::kNone;
  std::string stop_string;
  int tokens = 0;
};

// Feeds tokens 10, 11, ... with these pieces, or the given ids, until the generation ends.
Outcome Generate(const StopParams& params, const std::vector<std::pair<int32_t, std::string>>& tokens) {
  StopCondition stop(params, {kEos, kEot});
  Outcome outcome;
  for (const auto& [token, piece] : tokens) {
    StopCondition::Verdict verdict = stop.Accept(token, piece);
    outcome.text += verdict.text;
    outcome.tokens = stop.generated_tokens();
    if (verdict.reason == StopReason::kNone) continue;
    outcome.reason = verdict.reason;
    outcome.stop_string = verdict.stop_string;
    EXPECT_EQ(stop.Finish(), "");
    return outcome;
  }
  outcome.text += stop.Finish();
  return outcome;
}

TEST(StopConditionTest, MaxTokensEndsWithTheTextHeldBack) {
  StopParams params;
  params.max_tokens = 2;
  params.strings = {"bcd"};
  const Outcome outcome = Generate(params, {{10, "a"}, {11, "bc\xe2"}, {12, "d"}});
  EXPECT_EQ(outcome.reason, StopReason::kLength);
  EXPECT_EQ(outcome.text, "abc\xef\xbf\xbd");
  EXPECT_EQ(outcome.tokens, 2);
}

TEST(StopConditionTest, ZeroMaxTokensIsExhaustedFromTheStart) {
  StopParams params;
  params.max_tokens = 0;
  EXPECT_TRUE(StopCondition(params, {}).exhausted());
  params.max_tokens = 1;
  EXPECT_FALSE(StopCondition(params, {}).exhausted());
}

TEST(StopConditionTest, EveryEndOfGenerationTokenEndsAndIsNotShown) {
  for (const int32_t token : {kEos, kEot}) {
    const Outcome outcome = Generate({}, {{10, "a"}, {token, "<end>"}, {11, "b"}});
    EXPECT_EQ(outcome.reason, StopReason::kToken);
    EXPECT_EQ(outcome.text, "a");
    EXPECT_EQ(outcome.tokens, 2);
  }
}

TEST(StopConditionTest, IgnoreEosGoesOnButStopIdsStillCount) {
  StopParams params;
  params.ignore_eos = true;
  params.token_ids = {11};
  const Outcome outcome = Generate(params, {{kEos, ""}, {10, "a"}, {11, "b"}, {12, "c"}});
  EXPECT_EQ(outcome.reason, StopReason::kToken);
  EXPECT_EQ(outcome.text, "a");
}

TEST(StopConditionTest, AStopIdReleasesTheBeginningOfAStopString) {
  StopParams params;
  params.strings = {"xyz"};
  EXPECT_EQ(Generate(params, {{10, "axy"}, {kEos, ""}}).text, "axy");
}

TEST(StopConditionTest, AStopStringAcrossTokensIsNamedAndNotShown) {
  StopParams params;
  params.strings = {"\n\nUser:", "END"};
  const Outcome outcome = Generate(params, {{10, "hi\n"}, {11, "\nUs"}, {12, "er: more"}, {13, "x"}});
  EXPECT_EQ(outcome.reason, StopReason::kString);
  EXPECT_EQ(outcome.stop_string, "\n\nUser:");
  EXPECT_EQ(outcome.text, "hi");
  EXPECT_EQ(outcome.tokens, 3);
}

TEST(StopConditionTest, NothingEndsWithinMinTokens) {
  StopParams params;
  params.min_tokens = 3;
  params.strings = {"END"};
  params.token_ids = {11};
  const Outcome by_id = Generate(params, {{10, "a"}, {11, "b"}, {kEos, ""}, {11, "c"}});
  EXPECT_EQ(by_id.text, "ab");
  EXPECT_EQ(by_id.tokens, 4);
  EXPECT_EQ(by_id.reason, StopReason::kToken);
  const Outcome by_string = Generate(params, {{10, "END"}, {10, "E"}, {10, "N"}, {12, "D"}});
  EXPECT_EQ(by_string.text, "END");
  EXPECT_EQ(by_string.reason, StopReason::kString);
  EXPECT_EQ(by_string.tokens, 4);
}

TEST(StopConditionTest, AStopStringInTheLastTokenBeatsLength) {
  StopParams params;
  params.max_tokens = 2;
  params.strings = {"b"};
  EXPECT_EQ(Generate(params, {{10, "a"}, {11, "b"}}).reason, StopReason::kString);
  EXPECT_EQ(Generate(params, {{10, "a"}, {kEos, ""}}).reason, StopReason::kToken);
}

TEST(StopConditionTest, WithoutAReasonTheTextComesWithFinish) {
  StopParams params;
  params.strings = {"bcd"};
  const Outcome outcome = Generate(params, {{10, "abc"}});
  EXPECT_EQ(outcome.reason, StopReason::kNone);
  EXPECT_EQ(outcome.text, "abc");
}

TEST(ValidateStopTest, NamesTheFieldThatIsOutOfRange) {
  const std::pair<const char*, void (*)(StopParams&)> cases[] = {
      {"max_tokens is -1", [](StopParams& p) { p.max_tokens = -1; }},
      {"min_tokens is -1", [](StopParams& p) { p.min_tokens = -1; }},
      {"min_tokens is 129; allowed: 0 to max_tokens, 128", [](StopParams& p) { p.min_tokens = 129; }},
      {"stop strings is 17 entries", [](StopParams& p) { p.strings.assign(17, "x"); }},
      {"stop strings[1] is 0 bytes long",
       [](StopParams& p) {
         p.strings = {"x", ""};
       }},
      {"stop strings[0] is 1025 bytes long", [](StopParams& p) { p.strings = {std::string(1025, 'x')}; }},
      {"stop strings[0] is not valid UTF-8", [](StopParams& p) { p.strings = {"\xe2\x82"}; }},
      {"stop token_ids is 65 entries", [](StopParams& p) { p.token_ids.assign(65, 1); }},
      {"stop token_ids[1] is 100",
       [](StopParams& p) {
         p.token_ids = {99, 100};
       }},
      {"stop token_ids[0] is -1", [](StopParams& p) { p.token_ids = {-1}; }},
  };
  for (const auto& [message, spoil] : cases) {
    StopParams params;
    spoil(params);
    const absl::Status status = ValidateStop(params, 100);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << message;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
    EXPECT_THAT(std::string(status.message()), HasSubstr("allowed:"));
  }
}

TEST(ValidateStopTest, AcceptsTheDefaultsAndTheEndsOfEveryRange) {
  EXPECT_TRUE(ValidateStop({}, 100).ok());
  StopParams params;
  params.max_tokens = params.min_tokens = 0;
  params.strings.assign(16, std::string(1024, 'x'));
  params.token_ids.assign(64, 99);
  EXPECT_EQ(ValidateStop(params, 100), absl::OkStatus());
}

}  // namespace
}  // namespace tidepool
