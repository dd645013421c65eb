#include "client/http/openai_answer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_split.h"

namespace tidepool::http {
namespace {

using nlohmann::json;

OpenAiRequest Request(bool chat, const json& more = json::object()) {
  json body = chat ? json{{"messages", {{{"role", "user"}, {"content", "hi"}}}}} : json{{"prompt", "a"}};
  body.update(more);
  absl::StatusOr<OpenAiRequest> request = ParseOpenAiRequest(chat, body.dump(), {});
  EXPECT_TRUE(request.ok()) << request.status();
  return *request;
}

// Tokens: 0 " a", 1 "b", 2 and 3 the two parts of a character, 4 an end token.
std::shared_ptr<const Vocabulary> Pieces() { return *Vocabulary::Make(" ab\xe4\xbd\xa0<end>", {2, 1, 2, 1, 5}); }

OpenAiAnswer Answer(const OpenAiRequest& request) {
  return OpenAiAnswer(request, {.id = "id-1", .model = "m", .created_unix_seconds = 1000}, Pieces());
}

v1::Tokens Tokens(const std::string& text, const std::vector<int>& ids = {}) {
  v1::Tokens tokens;
  tokens.set_text(text);
  for (const int id : ids) {
    tokens.add_ids(id);
    v1::TokenLogprob& logprob = *tokens.add_logprobs();
    logprob.set_token(id);
    logprob.set_logprob(-0.5f);
    v1::TokenLogprob::Alternative& top = *logprob.add_top();
    top.set_token(1);
    top.set_logprob(-0.25f);
  }
  return tokens;
}

v1::Finished Finished(v1::FinishReason reason, int prompt, int cached, int generated) {
  v1::Finished finished;
  finished.set_reason(reason);
  finished.mutable_usage()->set_prompt_tokens(prompt);
  finished.mutable_usage()->set_cached_prompt_tokens(cached);
  finished.mutable_usage()->set_generated_tokens(generated);
  return finished;
}

std::vector<json> Events(const std::string& stream) {
  std::vector<json> events;
  for (const std::string& event : std::vector<std::string>(absl::StrSplit(stream, "\n\n", absl::SkipEmpty()))) {
    EXPECT_EQ(event.substr(0, 6), "data: ");
    if (event != "data: [DONE]") events.push_back(json::parse(event.substr(6)));
  }
  return events;
}

TEST(OpenAiAnswerTest, AWholeCompletion) {
  OpenAiAnswer answer = Answer(Request(false));
  EXPECT_EQ(answer.Add(0, Tokens("Hel")), "");
  EXPECT_EQ(answer.Add(0, Tokens("lo")), "");
  EXPECT_EQ(answer.End(0, Finished(v1::FINISH_REASON_LENGTH, 3, 2, 5)), "");
  EXPECT_EQ(json::parse(answer.Whole()), json::parse(R"({
    "id": "id-1", "object": "text_completion", "created": 1000, "model": "m",
    "choices": [{"index": 0, "text": "Hello", "logprobs": null, "finish_reason": "length"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8,
              "prompt_tokens_details": {"cached_tokens": 2}}})"));
}

TEST(OpenAiAnswerTest, AWholeChatWithLogprobs) {
  OpenAiAnswer answer = Answer(Request(true, {{"logprobs", true}, {"top_logprobs", 1}}));
  answer.Add(0, Tokens("", {2}));
  answer.Add(0, Tokens("\xe4\xbd\xa0", {3}));
  answer.End(0, Finished(v1::FINISH_REASON_STOP, 1, 0, 2));
  const json whole = json::parse(answer.Whole());
  EXPECT_EQ(whole["object"], "chat.completion");
  const json& choice = whole["choices"][0];
  EXPECT_EQ(choice["message"], json::parse(R"({"role": "assistant", "content": "\u4f60"})"));
  EXPECT_EQ(choice["finish_reason"], "stop");
  EXPECT_EQ(choice["logprobs"]["content"], json::parse(R"([
    {"token": "\ufffd", "logprob": -0.5, "bytes": [228, 189],
     "top_logprobs": [{"token": "b", "logprob": -0.25, "bytes": [98]}]},
    {"token": "\ufffd", "logprob": -0.5, "bytes": [160],
     "top_logprobs": [{"token": "b", "logprob": -0.25, "bytes": [98]}]}])"));
}

TEST(OpenAiAnswerTest, LogprobsOfACompletionCountCharacters) {
  OpenAiAnswer answer = Answer(Request(false, {{"logprobs", 1}}));
  answer.Add(0, Tokens(" a", {0, 2}));
  answer.Add(0, Tokens("\xe4\xbd\xa0"
                       "b",
                       {3, 1}));
  answer.End(0, Finished(v1::FINISH_REASON_STOP, 1, 0, 4));
  EXPECT_EQ(json::parse(answer.Whole())["choices"][0]["logprobs"], json::parse(R"({
    "text_offset": [0, 2, 3, 3], "token_logprobs": [-0.5, -0.5, -0.5, -0.5],
    "tokens": [" a", "bytes:\\xe4\\xbd", "bytes:\\xa0", "b"],
    "top_logprobs": [{"b": -0.25, " a": -0.5}, {"b": -0.25, "bytes:\\xe4\\xbd": -0.5},
                     {"b": -0.25, "bytes:\\xa0": -0.5}, {"b": -0.5}]})"));
}

TEST(OpenAiAnswerTest, AStreamedChatSaysTheSamePieceByPiece) {
  OpenAiAnswer answer =
      Answer(Request(true, {{"stream", true}, {"stream_options", {{"include_usage", true}}}, {"logprobs", true}}));
  std::string stream = answer.Opening();
  stream += answer.Add(0, Tokens(" a", {0}));
  stream += answer.Add(0, Tokens("", {1}));  // text held back, the token's log-probability is not
  stream += answer.Add(0, Tokens(""));
  stream += answer.End(0, Finished(v1::FINISH_REASON_STOP, 4, 3, 2));
  stream += answer.Closing();
  EXPECT_TRUE(stream.ends_with("data: [DONE]\n\n"));
  const std::vector<json> events = Events(stream);
  ASSERT_EQ(events.size(), 5u);
  for (const json& event : events) {
    EXPECT_EQ(event["id"], "id-1");
    EXPECT_EQ(event["object"], "chat.completion.chunk");
  }
  EXPECT_EQ(events[0]["choices"][0]["delta"], json::parse(R"({"role": "assistant", "content": ""})"));
  EXPECT_EQ(events[1]["choices"][0]["delta"], json::parse(R"({"content": " a"})"));
  EXPECT_EQ(events[1]["choices"][0]["logprobs"]["content"][0]["token"], " a");
  EXPECT_EQ(events[1]["choices"][0]["finish_reason"], nullptr);
  EXPECT_EQ(events[1]["usage"], nullptr);
  EXPECT_EQ(events[2]["choices"][0]["logprobs"]["content"][0]["token"], "b");
  EXPECT_EQ(events[3]["choices"][0]["delta"], json::object());
  EXPECT_EQ(events[3]["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(events[4]["choices"], json::array());
  EXPECT_EQ(events[4]["usage"]["prompt_tokens_details"]["cached_tokens"], 3);
}

TEST(OpenAiAnswerTest, AStreamWithoutUsageHasNone) {
  OpenAiAnswer answer = Answer(Request(false, {{"stream", true}}));
  const std::string stream = answer.Opening() + answer.Add(0, Tokens("x")) +
                             answer.End(0, Finished(v1::FINISH_REASON_LENGTH, 1, 0, 1)) + answer.Closing();
  const std::vector<json> events = Events(stream);
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0]["choices"][0]["text"], "x");
  EXPECT_EQ(events[1]["choices"][0]["finish_reason"], "length");
  for (const json& event : events) EXPECT_FALSE(event.contains("usage"));
}

TEST(OpenAiAnswerTest, APromptCountsOnceForAllItsAnswers) {
  OpenAiAnswer answer = Answer(Request(false, {{"prompt", {"a", "b"}}, {"n", 2}}));
  for (int i = 0; i < 4; ++i) {
    answer.Add(i, Tokens(std::string(1, static_cast<char>('A' + i))));
    answer.End(i, Finished(v1::FINISH_REASON_LENGTH, i < 2 ? 10 : 100, i, 1));
  }
  const json whole = json::parse(answer.Whole());
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(whole["choices"][i]["index"], i);
    EXPECT_EQ(whole["choices"][i]["text"], std::string(1, static_cast<char>('A' + i)));
  }
  EXPECT_EQ(whole["usage"], json::parse(R"({"prompt_tokens": 110, "completion_tokens": 4, "total_tokens": 114,
                                            "prompt_tokens_details": {"cached_tokens": 2}})"));
}

TEST(OpenAiAnswerTest, TheExtensionIsAnsweredWithWhatTheWorkerSays) {
  v1::Finished finished = Finished(v1::FINISH_REASON_STOP, 1, 0, 1);
  finished.set_stop_string("END");
  finished.mutable_usage()->set_degraded(true);
  OpenAiAnswer whole = Answer(Request(true, {{"tidepool", json::object()}}));
  whole.End(0, finished);
  const json said = json::parse(whole.Whole())["choices"][0]["tidepool"];
  EXPECT_EQ(said["stop_string"], "END");
  EXPECT_EQ(said["usage"]["degraded"], true);
  OpenAiAnswer stream = Answer(Request(true, {{"tidepool", json::object()}, {"stream", true}}));
  EXPECT_EQ(Events(stream.End(0, finished))[0]["choices"][0]["tidepool"], said);
}

TEST(OpenAiAnswerTest, InfinityIsANumberOfJson) {
  v1::Tokens tokens = Tokens("b", {1});
  tokens.mutable_logprobs(0)->set_logprob(-INFINITY);
  OpenAiAnswer answer = Answer(Request(true, {{"logprobs", true}}));
  answer.Add(0, tokens);
  answer.End(0, Finished(v1::FINISH_REASON_STOP, 1, 0, 1));
  EXPECT_EQ(json::parse(answer.Whole())["choices"][0]["logprobs"]["content"][0]["logprob"], -9999.0);
}

TEST(OpenAiAnswerTest, ABrokenStreamEndsWithTheError) {
  const std::vector<json> events = Events(OpenAiAnswer::Broken(RefusalOf(503, "gone")));
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0]["error"]["message"], "gone");
}

}  // namespace
}  // namespace tidepool::http
