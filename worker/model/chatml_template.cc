#include "worker/model/chatml_template.h"

#include <optional>
#include <string>
#include <utility>

#include "base/status_macros.h"
#include "worker/model/chat_prompt.h"

namespace tidepool {
namespace {

bool Contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

void AppendMessage(std::string_view role, std::string_view content, ChatPrompt* prompt) {
  prompt->Template("<|im_start|>").Template(role).Template("\n").Content(content).Template("<|im_end|>\n");
}

// Each message framed, after a default system message when the first message is not one and the template has a default.
class ChatmlTemplate final : public ChatTemplate {
 public:
  ChatmlTemplate(std::string name, std::string bos, std::string default_system)
      : name_(std::move(name)), bos_(std::move(bos)), default_system_(std::move(default_system)) {}
  std::string_view name() const override { return name_; }
  absl::StatusOr<std::vector<TextSegment>> RenderSegments(absl::Span<const ChatMessage> messages,
                                                          bool add_generation_prompt) const override {
    TP_RETURN_IF_ERROR(CheckRoles(messages, /*tool_allowed=*/name_ != "qwen2"));  // Qwen wraps them in its own tags
    ChatPrompt prompt;
    prompt.Template(bos_);
    if (!default_system_.empty() && messages[0].role != "system") {
      prompt.Template("<|im_start|>system\n").Template(default_system_).Template("<|im_end|>\n");
    }
    for (const ChatMessage& message : messages) AppendMessage(message.role, message.content, &prompt);
    if (add_generation_prompt) prompt.Template("<|im_start|>assistant\n");
    return std::move(prompt).Finish();
  }

 private:
  const std::string name_, bos_, default_system_;
};

std::string_view StripNewlines(std::string_view text, bool left, bool right) {
  while (left && !text.empty() && text.front() == '\n') text.remove_prefix(1);
  while (right && !text.empty() && text.back() == '\n') text.remove_suffix(1);
  return text;
}

// An assistant's message: what it thought, between <think> and </think>, and what it said.
struct Thought {
  std::string_view reasoning, answer;
};
Thought SplitThought(std::string_view content) {
  constexpr std::string_view kOpen = "<think>", kClose = "</think>";
  const size_t first_close = content.find(kClose);
  if (first_close == std::string_view::npos) return {"", content};
  std::string_view reasoning = StripNewlines(content.substr(0, first_close), false, true);
  const size_t open = reasoning.rfind(kOpen);
  if (open != std::string_view::npos) reasoning.remove_prefix(open + kOpen.size());
  return {StripNewlines(reasoning, true, false),
          StripNewlines(content.substr(content.rfind(kClose) + kClose.size()), true, false)};
}

// Qwen 3 without tools. Thoughts of earlier turns are dropped; an assistant message after the last question keeps its
// own.
class Qwen3Template final : public ChatTemplate {
 public:
  std::string_view name() const override { return "qwen3"; }
  absl::StatusOr<std::vector<TextSegment>> RenderSegments(absl::Span<const ChatMessage> messages,
                                                          bool add_generation_prompt) const override {
    TP_RETURN_IF_ERROR(CheckRoles(messages));
    const size_t last_question = LastQuestion(messages);
    ChatPrompt prompt;
    for (size_t i = 0; i < messages.size(); ++i) {
      const ChatMessage& message = messages[i];
      if (message.role != "assistant") {
        AppendMessage(message.role, message.content, &prompt);
        continue;
      }
      const Thought thought = SplitThought(message.content);
      const bool last = i + 1 == messages.size();
      if (i > last_question && (last || !thought.reasoning.empty())) {
        prompt.Template("<|im_start|>assistant\n<think>\n").Content(StripNewlines(thought.reasoning, true, true));
        prompt.Template("\n</think>\n\n").Content(StripNewlines(thought.answer, true, false)).Template("<|im_end|>\n");
      } else {
        AppendMessage("assistant", thought.answer, &prompt);
      }
    }
    if (add_generation_prompt) prompt.Template("<|im_start|>assistant\n");
    return std::move(prompt).Finish();
  }

 private:
  // A user message that carries a tool's response is no question.
  static size_t LastQuestion(absl::Span<const ChatMessage> messages) {
    for (size_t i = messages.size(); i-- > 0;) {
      const std::string_view content = messages[i].content;
      if (messages[i].role == "user" &&
          !(content.starts_with("<tool_response>") && content.ends_with("</tool_response>"))) {
        return i;
      }
    }
    return messages.size() - 1;
  }
};

// The literal text between <|im_start|>system and <|im_end|> in the template's source; empty when there is none.
// Sources write the line break as the escape \n or as itself. A quote right after it begins code; a text with escapes
// or code in it is one that we cannot repeat: then nothing.
std::optional<std::string> DefaultSystem(std::string_view source) {
  constexpr std::string_view kOpen = "<|im_start|>system", kClose = "<|im_end|>";
  for (size_t at = source.find(kOpen); at != std::string_view::npos; at = source.find(kOpen, at + 1)) {
    std::string_view rest = source.substr(at + kOpen.size());
    if (rest.starts_with("\\n")) {
      rest.remove_prefix(2);
    } else if (rest.starts_with("\n")) {
      rest.remove_prefix(1);
    } else {
      continue;
    }
    if (rest.starts_with("'") || rest.starts_with("\"")) continue;
    const size_t end = rest.find(kClose);
    if (end == 0 || end == std::string_view::npos) return std::nullopt;
    const std::string_view text = rest.substr(0, end);
    if (text.find_first_of("'\"{}\\") != std::string_view::npos) return std::nullopt;
    return std::string(text);
  }
  return "";
}

}  // namespace

std::unique_ptr<ChatTemplate> RecognizeChatml(std::string_view source, std::string_view bos) {
  if (!Contains(source, "<|im_start|>") || !Contains(source, "<|im_end|>")) return nullptr;
  if (Contains(source, "enable_thinking") && Contains(source, "last_query_index"))
    return std::make_unique<Qwen3Template>();
  // Templates that rewrite the content, that open the answer with a thought or that close the prompt with another
  // token.
  for (const char* other : {"strip(", "|trim", "| trim", "<think>", "eos_token"}) {
    if (Contains(source, other)) return nullptr;
  }
  const std::optional<std::string> system = DefaultSystem(source);
  if (!system) return nullptr;
  std::string name = "chatml";
  if (Contains(*system, "SmolLM")) name = "smollm2";
  if (Contains(*system, "Qwen") || Contains(source, "<tool_call>")) name = "qwen2";
  return std::make_unique<ChatmlTemplate>(name, Contains(source, "bos_token") ? std::string(bos) : "", *system);
}

}  // namespace tidepool
