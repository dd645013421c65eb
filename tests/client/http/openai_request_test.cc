#include "client/http/openai_request.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"

namespace tidepool::http {
namespace {

using nlohmann::json;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

absl::StatusOr<OpenAiRequest> Completion(const json& body) {
  return ParseOpenAiRequest(false, body.dump(), {.seed = 77});
}
absl::StatusOr<OpenAiRequest> Chat(json body) {
  if (!body.contains("messages")) body["messages"] = {{{"role", "user"}, {"content", "hi"}}};
  return ParseOpenAiRequest(true, body.dump(), {.chat_max_tokens = 99, .seed = 77});
}
const v1::GenerateRequest& Prompt(const OpenAiRequest& request, size_t i = 0) {
  return std::get<v1::GenerateRequest>(request.prompts.at(i));
}
const v1::ChatRequest& Messages(const OpenAiRequest& request) {
  return std::get<v1::ChatRequest>(request.prompts.at(0));
}
std::string Error(const absl::StatusOr<OpenAiRequest>& request) {
  EXPECT_EQ(request.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(request.status().message());
}

TEST(OpenAiRequestTest, WhatIsNotGivenHasOpenAisDefaults) {
  const auto request = Completion({{"prompt", "a"}});
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_FALSE(request->stream || request->include_usage || request->logprobs || request->extended);
  EXPECT_EQ(request->model, "");
  EXPECT_EQ(request->choices(), 1);
  v1::GenerateRequest expected;
  expected.set_text("a");
  expected.mutable_sampling()->set_temperature(1);
  expected.mutable_sampling()->set_seed(77);
  expected.mutable_stop()->set_max_tokens(16);
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(Prompt(*request), expected))
      << Prompt(*request).DebugString();
  EXPECT_EQ(Messages(*Chat(json::object())).stop().max_tokens(), 99);
}

TEST(OpenAiRequestTest, EveryFieldOfACompletionReachesTheWorker) {
  const auto request = Completion({{"model", "m"},
                                   {"prompt", {1, 2, 3}},
                                   {"max_tokens", 5},
                                   {"temperature", 0.5},
                                   {"top_p", 0.9},
                                   {"seed", -1},
                                   {"presence_penalty", 0.25},
                                   {"frequency_penalty", -0.5},
                                   {"logit_bias", {{"7", -100}, {"8", 1.5}}},
                                   {"stop", {"a", "b"}},
                                   {"logprobs", 3},
                                   {"stream", true},
                                   {"stream_options", {{"include_usage", true}}},
                                   {"user", "someone"},
                                   {"best_of", 1},
                                   {"echo", false},
                                   {"suffix", nullptr}});
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_TRUE(request->stream && request->include_usage && request->logprobs);
  EXPECT_EQ(request->model, "m");
  const v1::GenerateRequest& prompt = Prompt(*request);
  EXPECT_THAT(prompt.token_ids().ids(), ElementsAre(1, 2, 3));
  EXPECT_EQ(prompt.stop().max_tokens(), 5);
  EXPECT_THAT(prompt.stop().strings(), ElementsAre("a", "b"));
  EXPECT_EQ(prompt.sampling().temperature(), 0.5f);
  EXPECT_EQ(prompt.sampling().top_p(), 0.9f);
  EXPECT_EQ(prompt.sampling().seed(), UINT64_MAX);
  EXPECT_EQ(prompt.sampling().presence_penalty(), 0.25f);
  EXPECT_EQ(prompt.sampling().frequency_penalty(), -0.5f);
  EXPECT_EQ(prompt.sampling().logit_bias().at(7), -100.0f);
  EXPECT_EQ(prompt.sampling().logit_bias().at(8), 1.5f);
  EXPECT_EQ(prompt.logprobs(), 3);
}

TEST(OpenAiRequestTest, MessagesAreTextOfTheRolesThatThereAre) {
  const auto request =
      Chat({{"messages",
             {{{"role", "developer"}, {"content", "Be brief."}},
              {{"role", "user"}, {"content", {{{"type", "text"}, {"text", "a"}}, {{"type", "text"}, {"text", "b"}}}}},
              {{"role", "assistant"}, {"content", "c"}, {"refusal", nullptr}},
              {{"role", "user"}, {"content", ""}}}},
            {"logprobs", true},
            {"top_logprobs", 4},
            {"max_completion_tokens", 6},
            {"tools", json::array()},
            {"response_format", {{"type", "text"}}}});
  ASSERT_TRUE(request.ok()) << request.status();
  const v1::ChatRequest& chat = Messages(*request);
  ASSERT_EQ(chat.messages_size(), 4);
  EXPECT_EQ(chat.messages(0).role(), "system");
  EXPECT_EQ(chat.messages(1).content(), "ab");
  EXPECT_EQ(chat.messages(2).role(), "assistant");
  EXPECT_EQ(chat.messages(3).content(), "");
  EXPECT_EQ(chat.logprobs(), 4);
  EXPECT_EQ(chat.stop().max_tokens(), 6);
  EXPECT_EQ(Messages(*Chat({{"logprobs", true}})).logprobs(), 0);
  EXPECT_FALSE(Messages(*Chat({{"logprobs", false}})).has_logprobs());
}

TEST(OpenAiRequestTest, TheExtensionIsReadAsTheProtocolsJson) {
  const auto request = Completion({{"prompt", "a"},
                                   {"tidepool",
                                    {{"session_id", "s"},
                                     {"compression",
                                      {{"preset", "snapkv"},
                                       {"budget_fraction", 0.1},
                                       {"recall", {{"mode", "RECALL_MODE_SYNC"}}},
                                       {"scoreOptions", {{"x", 1}}}}},
                                     {"reuse_prefix", false},
                                     {"top_k", 4},
                                     {"min_p", 0.5},
                                     {"repetition_penalty", 1.5},
                                     {"min_tokens", 2},
                                     {"stop_token_ids", {9}},
                                     {"ignore_eos", true},
                                     {"parse_special", true}}}});
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_TRUE(request->extended);
  EXPECT_EQ(request->session_id(), "s");
  const v1::GenerateRequest& prompt = Prompt(*request);
  EXPECT_EQ(prompt.compression().preset(), "snapkv");
  EXPECT_EQ(prompt.compression().budget_fraction(), 0.1);
  EXPECT_EQ(prompt.compression().recall().mode(), v1::RECALL_MODE_SYNC);
  EXPECT_EQ(prompt.compression().score_options().at("x"), 1);
  EXPECT_FALSE(prompt.reuse_prefix());
  EXPECT_EQ(prompt.sampling().top_k(), 4);
  EXPECT_EQ(prompt.sampling().min_p(), 0.5f);
  EXPECT_EQ(prompt.sampling().repetition_penalty(), 1.5f);
  EXPECT_EQ(prompt.stop().min_tokens(), 2);
  EXPECT_THAT(prompt.stop().token_ids(), ElementsAre(9));
  EXPECT_TRUE(prompt.stop().ignore_eos());
  EXPECT_TRUE(prompt.parse_special());
}

TEST(OpenAiRequestTest, ChoicesOfOnePromptDifferByTheirSeeds) {
  const auto request = Completion({{"prompt", {"a", "b"}}, {"n", 2}, {"seed", 10}});
  ASSERT_TRUE(request.ok()) << request.status();
  ASSERT_EQ(request->choices(), 4);
  const std::pair<const char*, uint64_t> expected[] = {{"a", 10}, {"a", 11}, {"b", 10}, {"b", 11}};
  for (int i = 0; i < 4; ++i) {
    const auto choice = std::get<v1::GenerateRequest>(request->Choice(i, "id"));
    EXPECT_EQ(choice.text(), expected[i].first);
    EXPECT_EQ(choice.sampling().seed(), expected[i].second);
    EXPECT_EQ(choice.request_id(), "id");
  }
  EXPECT_THAT(Prompt(*Completion({{"prompt", {{1, 2}, {3}}}}), 1).token_ids().ids(), ElementsAre(3));
}

TEST(OpenAiRequestTest, MistakesBeginWithTheField) {
  const std::pair<json, const char*> completions[] = {
      {json::object(), "prompt: is missing"},
      {{{"prompt", 1}}, "prompt: "},
      {{{"prompt", json::array()}}, "prompt: is an empty list"},
      {{{"prompt", {"a", 1}}}, "prompt: "},
      {{{"prompt", {-1}}}, "prompt: -1"},
      {{{"prompt", {4294967296}}}, "prompt: 4294967296"},
      {{{"prompt", std::vector<std::string>(17, "a")}}, "prompt: 17 prompts"},
      {{{"prompt", "a"}, {"model", 1}}, "model: 1"},
      {{{"prompt", "a"}, {"max_tokens", "9"}}, R"(max_tokens: "9")"},
      {{{"prompt", "a"}, {"max_tokens", -1}}, "max_tokens: -1"},
      {{{"prompt", "a"}, {"temperature", "hot"}}, "temperature: "},
      {{{"prompt", "a"}, {"stop", 1}}, "stop: 1"},
      {{{"prompt", "a"}, {"stop", {1}}}, "stop: [1]"},
      {{{"prompt", "a"}, {"stop", std::vector<std::string>(17, "a")}}, "stop: 17"},
      {{{"prompt", "a"}, {"logprobs", 21}}, "logprobs: 21"},
      {{{"prompt", "a"}, {"logprobs", true}}, "logprobs: true"},
      {{{"prompt", "a"}, {"n", 0}}, "n: 0"},
      {{{"prompt", "a"}, {"n", 17}}, "n: 17"},
      {{{"prompt", {"a", "b"}}, {"n", 9}}, "n: 9 answers to 2 prompts are 18"},
      {{{"prompt", "a"}, {"n", 2}, {"tidepool", {{"session_id", "s"}}}}, "n: a session"},
      {{{"prompt", "a"}, {"seed", 1.5}}, "seed: 1.5"},
      {{{"prompt", "a"}, {"logit_bias", {{"x", 1}}}}, "logit_bias: \"x\""},
      {{{"prompt", "a"}, {"logit_bias", {{"1", "y"}}}}, "logit_bias: \"1\""},
      {{{"prompt", "a"}, {"stream", 1}}, "stream: 1"},
      {{{"prompt", "a"}, {"stream_options", {{"include_usage", true}}}}, "stream_options: needs stream"},
      {{{"prompt", "a"}, {"stream", true}, {"stream_options", {{"x", true}}}}, "stream_options.x: "},
      {{{"prompt", "a"}, {"echo", true}}, "echo: true is not false"},
      {{{"prompt", "a"}, {"best_of", 3}}, "best_of: 3"},
      {{{"prompt", "a"}, {"suffix", "b"}}, "suffix: "},
      {{{"prompt", "a"}, {"user", std::string(257, 'u')}}, "user: 257 bytes"},
      {{{"prompt", "a"}, {"messages", json::array()}}, "messages: is not supported"},
      {{{"prompt", "a"}, {"max_completion_tokens", 1}}, "max_completion_tokens: is not supported"},
      {{{"prompt", "a"}, {"tidepool", 1}}, "tidepool: 1"},
      {{{"prompt", "a"}, {"tidepool", {{"compression", {{"budget", 1}}}}}}, "tidepool: "},
      {{{"prompt", "a"}, {"tidepool", {{"top_k", "many"}}}}, "tidepool: "},
  };
  for (const auto& [body, begin] : completions) EXPECT_THAT(Error(Completion(body)), StartsWith(begin)) << body;

  const json user = {{"role", "user"}, {"content", "a"}};
  const std::pair<json, const char*> chats[] = {
      {{{"messages", nullptr}}, "messages: is missing"},
      {{{"messages", json::array()}}, "messages: []"},
      {{{"messages", {1}}}, "messages[0]: is not an object"},
      {{{"messages", {user, {{"role", "tool"}, {"content", "a"}}}}}, R"(messages[1].role: "tool")"},
      {{{"messages", {{{"role", "user"}}}}}, "messages[0].content: is missing"},
      {{{"messages", {{{"role", "user"}, {"content", 1}}}}}, "messages[0].content: 1"},
      {{{"messages", {{{"role", "user"}, {"content", {{{"type", "image_url"}}}}}}}}, "messages[0].content[0].type: "},
      {{{"messages", {{{"role", "user"}, {"content", "a"}, {"name", "x"}}}}}, "messages[0].name: is not supported"},
      {{{"prompt", "a"}}, "prompt: is not supported"},
      {{{"logprobs", 1}}, "logprobs: 1"},
      {{{"top_logprobs", 1}}, "top_logprobs: needs logprobs"},
      {{{"max_tokens", 1}, {"max_completion_tokens", 2}}, "max_tokens: 1"},
      {{{"tools", {1}}}, "tools: [1]"},
      {{{"response_format", {{"type", "json_object"}}}}, "response_format: "},
      {{{"tidepool", {{"parse_special", true}}}}, "tidepool.parse_special: "},
  };
  for (const auto& [body, begin] : chats) EXPECT_THAT(Error(Chat(body)), StartsWith(begin)) << body;
}

TEST(OpenAiRequestTest, TheNumberOfMessagesHasALimit) {
  const json user = {{"role", "user"}, {"content", "a"}};
  EXPECT_TRUE(Chat({{"messages", std::vector<json>(kMaxMessages, user)}}).ok());
  EXPECT_THAT(Error(Chat({{"messages", std::vector<json>(kMaxMessages + 1, user)}})), HasSubstr("at most 4096"));
}

}  // namespace
}  // namespace tidepool::http
