// What each family's template writes. The expected texts were checked against Jinja renderings of the published
// templates; the sources here are the excerpts by which they are recognised.
#include "worker/model/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace tidepool {
namespace {

using Messages = std::vector<ChatMessage>;
using testing::HasSubstr;

constexpr char kChatml[] =
    "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
constexpr char kQwen2[] =
    "{%- if tools %}{{- '<|im_start|>system\\n' }}<tool_call>{% else %}{{- '<|im_start|>system\\n' + "
    "messages[0]['content'] + "
    "'<|im_end|>\\n' }}{{- '<|im_start|>system\\nYou are Qwen. You help.<|im_end|>\\n' }}{% endif %}";
constexpr char kQwen3[] = "<|im_start|> <|im_end|> ns.last_query_index '</think>' lstrip( enable_thinking";
constexpr char kLlama3[] =
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' "
    "}}"
    "{% if add_generation_prompt %}";
constexpr char kLlama2[] =
    "'<<SYS>>\\n' + system_message {{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }} ' '  + content.strip() + "
    "' ' + eos_token";
constexpr char kMistral0[] =
    "{{ bos_token }} '[INST] ' + message['content'] + ' [/INST]' {{ message['content'] + eos_token}}";
constexpr char kMistral1[] =
    "{{- bos_token }} ' [INST] ' + message['content'] + ' [/INST]' {{- ' ' + message['content'] + eos_token}}";
constexpr char kMistral3[] =
    "{{- bos_token }} \"[INST] \" + message[\"content\"] + \"[/INST]\" {{- \" \" + message[\"content\"]|trim + "
    "eos_token}}";

std::string Name(const std::string& source) {
  const auto chat = ChatTemplate::Recognize(source, "<s>", "</s>");
  return chat.ok() ? std::string((*chat)->name()) : chat.status().ToString();
}

absl::StatusOr<std::string> Render(const std::string& source, const Messages& messages, bool generate = true) {
  const auto chat = ChatTemplate::Recognize(source, "<s>", "</s>");
  if (!chat.ok()) return chat.status();
  return (*chat)->Render(messages, generate);
}

const Messages kConversation = {{"system", "Be brief."}, {"user", " Hi "}, {"assistant", " Yo "}, {"user", "Bye"}};
const Messages kNoSystem(kConversation.begin() + 1, kConversation.end());

TEST(ChatTemplateTest, FamiliesAreRecognised) {
  EXPECT_EQ(Name(kChatml), "chatml");
  EXPECT_EQ(Name(kQwen2), "qwen2");
  EXPECT_EQ(Name(kQwen3), "qwen3");
  EXPECT_EQ(Name(kLlama3), "llama3");
  EXPECT_EQ(Name(kLlama2), "llama2");
  EXPECT_EQ(Name(kMistral0), "mistral");
  EXPECT_EQ(Name(kMistral1), "mistral");
  EXPECT_EQ(Name(kMistral3), "mistral");
}

TEST(ChatTemplateTest, UnknownOnesAreRefusedByTheirFirstCharacters) {
  const std::string source = "{{ '<|user|>' }}\n" + std::string(100, 'x');
  const auto chat = ChatTemplate::Recognize(source, "", "");
  EXPECT_EQ(chat.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(chat.status().message()), HasSubstr("<|user|>"));
  EXPECT_LT(chat.status().message().size(), 300u);
  EXPECT_THAT(Name(""), HasSubstr("UNIMPLEMENTED"));
}

TEST(ChatTemplateTest, VariantsThatWeCannotRepeatAreRefused) {
  const std::string chatml = kChatml;
  EXPECT_THAT(Name(chatml + "{{ message['content'] | trim }}"), HasSubstr("UNIMPLEMENTED"));
  EXPECT_THAT(Name(chatml + "{{ '<think>\\n' }}"), HasSubstr("UNIMPLEMENTED"));
  EXPECT_THAT(Name(chatml + "{% else %}{{ eos_token }}"), HasSubstr("UNIMPLEMENTED"));
  EXPECT_THAT(Name("'<|im_start|>system\\nPut it in \\\\boxed{}.<|im_end|>\\n'"), HasSubstr("UNIMPLEMENTED"));
  EXPECT_THAT(Name(std::string(kLlama3) + "{{ eos_token }}"), HasSubstr("UNIMPLEMENTED"));
  EXPECT_THAT(Name("'[INST] ' + content.strip() + ' [/INST]' bos_token"), HasSubstr("UNIMPLEMENTED"));
  EXPECT_THAT(Name("[SYSTEM_PROMPT] '[INST] ' '[/INST]' bos_token"), HasSubstr("UNIMPLEMENTED"));
}

TEST(ChatTemplateTest, ChatmlFramesEachMessage) {
  EXPECT_EQ(*Render(kChatml, kConversation),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi <|im_end|>\n<|im_start|>assistant\n Yo "
            "<|im_end|>\n"
            "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(*Render(kChatml, {{"tool", "4"}}, false), "<|im_start|>tool\n4<|im_end|>\n");
  EXPECT_EQ(*Render(std::string("{{ bos_token }}") + kChatml, {{"user", "a"}}, false),
            "<s><|im_start|>user\na<|im_end|>\n");
}

TEST(ChatTemplateTest, DefaultSystemMessageStandsInOnlyWhereThereIsNone) {
  EXPECT_EQ(
      *Render(kQwen2, {{"user", "a"}}),
      "<|im_start|>system\nYou are Qwen. You help.<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(*Render(kQwen2, {{"system", ""}, {"user", "a"}}, false),
            "<|im_start|>system\n<|im_end|>\n<|im_start|>user\na<|im_end|>\n");
}

TEST(ChatTemplateTest, Qwen3DropsThoughtsOfEarlierTurnsOnly) {
  const std::string thought = "<think>\nplan\n</think>\n\nanswer";
  EXPECT_EQ(*Render(kQwen3, {{"user", "a"}, {"assistant", thought}, {"user", "b"}}),
            "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nanswer<|im_end|>\n<|im_start|>user\nb<|im_end|>\n"
            "<|im_start|>assistant\n");
  EXPECT_EQ(*Render(kQwen3, {{"user", "a"}, {"assistant", thought}}, false),
            "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n<think>\nplan\n</think>\n\nanswer<|im_end|>\n");
  EXPECT_EQ(*Render(kQwen3, {{"user", "a"}, {"assistant", "b"}}, false),
            "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\nb<|im_end|>\n");
}

TEST(ChatTemplateTest, Llama3TrimsAndHeads) {
  EXPECT_EQ(
      *Render(kLlama3, kNoSystem),
      "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nYo<|"
      "eot_id|>"
      "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n");
}

TEST(ChatTemplateTest, Llama31AlwaysStatesItsDates) {
  const std::string source = std::string(kLlama3) + "{{- \"Cutting Knowledge Date: December 2023\\n\" }}";
  const std::string head =
      "<s><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: 26 Jul "
      "2024\n\n";
  EXPECT_EQ(*Render(source, {{"user", "a"}}, false),
            head + "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\na<|eot_id|>");
  EXPECT_EQ(*Render(source, {{"system", " s "}, {"user", "a"}}, false),
            head + "s<|eot_id|><|start_header_id|>user<|end_header_id|>\n\na<|eot_id|>");
}

TEST(ChatTemplateTest, Llama2MarksTheSystemPartInTheFirstTurn) {
  EXPECT_EQ(*Render(kLlama2, kConversation),
            "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n Hi [/INST] Yo </s><s>[INST] Bye [/INST]");
  EXPECT_EQ(*Render(kLlama2, kNoSystem), "<s>[INST] Hi [/INST] Yo </s><s>[INST] Bye [/INST]");
  EXPECT_EQ(*Render(kLlama2, {{"system", "s"}, {"user", "\n"}}), "<s>[INST] <<SYS>>\ns\n<</SYS>> [/INST]");
}

TEST(ChatTemplateTest, MistralVersionsDifferInBlanksAndInThePlaceOfTheSystemMessage) {
  EXPECT_EQ(*Render(kMistral0, kNoSystem), "<s>[INST]  Hi  [/INST] Yo </s>[INST] Bye [/INST]");
  EXPECT_EQ(*Render(kMistral1, kConversation), "<s> [INST] Be brief.\n\n Hi  [/INST]  Yo </s> [INST] Bye [/INST]");
  EXPECT_EQ(*Render(kMistral3, kConversation), "<s>[INST]  Hi [/INST] Yo</s>[INST] Be brief.\n\nBye[/INST]");
}

TEST(ChatTemplateTest, RolesOutOfOrderAreNamed) {
  EXPECT_THAT(std::string(Render(kChatml, {}).status().message()), HasSubstr("messages is empty"));
  EXPECT_EQ(Render(kChatml, {{"user", "a"}, {"robot", "b"}}).status().message(),
            "messages[1].role is \"robot\"; allowed are system, user, assistant, tool");
  EXPECT_EQ(Render(kQwen2, {{"tool", "a"}}).status().message(),
            "messages[0].role is \"tool\"; allowed are system, user, assistant");
  EXPECT_EQ(Render(kMistral1, {{"user", "a"}, {"user", "b"}}).status().message(),
            "messages[1].role is \"user\"; this model's template needs assistant here");
  EXPECT_EQ(Render(kMistral0, kConversation).status().message(),
            "messages[0].role is \"system\"; this model's template has no system messages");
  EXPECT_EQ(Render(kLlama2, {{"system", "a"}}).status().message(),
            "messages[0].role is \"system\"; a user message must follow it");
  for (const char* source : {kChatml, kMistral1}) {
    EXPECT_EQ(Render(source, {}).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

std::string Join(const std::vector<TextSegment>& segments) {
  std::string text;
  for (const TextSegment& segment : segments) text += segment.text;
  return text;
}

TEST(ChatTemplateTest, AContinuationIsWhatTheWholeConversationHasAfterTheAnswer) {
  const Messages before = {{"user", "Hi"}, {"assistant", "Yo"}};
  const Messages turn = {{"user", "Bye"}};
  const Messages cut_short = {{"user", "Why"}, {"assistant", "Bec"}, {"user", "Go on"}};
  for (const char* source : {kChatml, kQwen2, kQwen3, kLlama3, kLlama2, kMistral0, kMistral1, kMistral3}) {
    const auto chat = ChatTemplate::Recognize(source, "<s>", "</s>");
    ASSERT_TRUE(chat.ok()) << source;
    for (const Messages& messages : {turn, cut_short}) {
      Messages all = before;
      all.insert(all.end(), messages.begin(), messages.end());
      const std::string whole = *(*chat)->Render(all, /*add_generation_prompt=*/true);
      const auto continued = (*chat)->ContinueSegments(messages);
      ASSERT_TRUE(continued.ok()) << continued.status();
      const std::string text = Join(*continued);
      EXPECT_THAT(whole, testing::EndsWith(text)) << (*chat)->name();
      EXPECT_THAT(whole.substr(0, whole.size() - text.size()), testing::ContainsRegex("Hi(.|\n)*Yo *$"));
      EXPECT_TRUE(continued->front().parse_special) << "the end of the answer is the template's";
    }
  }
}

TEST(ChatTemplateTest, AContinuationBeginsWithTheEndOfTheAnswer) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {kChatml, "<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"},
      {kQwen2, "<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"},
      {kLlama3,
       "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|><|start_header_id|>assistant<|end_header_"
       "id|>\n\n"},
      {kLlama2, "</s><s>[INST] Bye [/INST]"},
      {kMistral3, "</s>[INST] Bye[/INST]"}};
  for (const auto& [source, text] : cases) {
    EXPECT_EQ(Join(*(*ChatTemplate::Recognize(source, "<s>", "</s>"))->ContinueSegments({{"user", "Bye"}})), text);
  }
}

TEST(ChatTemplateTest, WhatCannotFollowAnAnswerIsRefused) {
  const auto chat = ChatTemplate::Recognize(kLlama2, "<s>", "</s>");
  const auto continued = (*chat)->ContinueSegments({{"system", "Be brief."}, {"user", "Bye"}});
  EXPECT_EQ(continued.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ChatTemplateTest, OnlyContentIsUntrusted) {
  for (const char* source : {kChatml, kQwen2, kQwen3, kLlama3, kLlama2, kMistral1, kMistral3}) {
    const auto chat = ChatTemplate::Recognize(source, "<s>", "</s>");
    ASSERT_TRUE(chat.ok()) << chat.status();
    const auto segments =
        (*chat)->RenderSegments(Messages{{"user", "QUESTION"}, {"assistant", "ANSWER"}, {"user", "MORE"}}, true);
    ASSERT_TRUE(segments.ok()) << segments.status();
    std::string content;
    for (const TextSegment& segment : *segments) {
      if (!segment.parse_special) content += segment.text + "|";
    }
    EXPECT_EQ(content, "QUESTION|ANSWER|MORE|") << source;
  }
}

}  // namespace
}  // namespace tidepool
