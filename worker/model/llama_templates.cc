#include "worker/model/llama_templates.h"

#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/model/chat_prompt.h"

namespace tidepool {
namespace {

bool Contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

// Llama 3; from 3.1 on every prompt begins with a system message that states two dates. Templates of 3.2 and 3.3 put
// the day of the request there when they can; we write the fixed date that they fall back to, so that equal prompts
// give equal tokens.
class Llama3Template final : public ChatTemplate {
 public:
  Llama3Template(std::string_view bos, bool dated, bool always_prompts)
      : bos_(bos), dated_(dated), always_prompts_(always_prompts) {}
  std::string_view name() const override { return "llama3"; }
  absl::StatusOr<std::vector<TextSegment>> RenderSegments(absl::Span<const ChatMessage> messages,
                                                          bool add_generation_prompt) const override {
    TP_RETURN_IF_ERROR(CheckRoles(messages));
    ChatPrompt prompt;
    prompt.Template(bos_);
    size_t first = 0;
    if (dated_) {
      const bool has_system = messages[0].role == "system";
      Header("system", &prompt);
      prompt.Template("Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n");
      if (has_system) prompt.Content(Trim(messages[0].content));
      prompt.Template("<|eot_id|>");
      first = has_system ? 1 : 0;
    }
    for (const ChatMessage& message : messages.subspan(first)) {
      Header(message.role, &prompt);
      prompt.Content(Trim(message.content)).Template("<|eot_id|>");
    }
    if (add_generation_prompt || always_prompts_) Header("assistant", &prompt);
    return std::move(prompt).Finish();
  }

 private:
  static void Header(std::string_view role, ChatPrompt* prompt) {
    prompt->Template("<|start_header_id|>").Template(role).Template("<|end_header_id|>\n\n");
  }

  const std::string bos_;
  const bool dated_;
  const bool always_prompts_;  // the first templates did not know add_generation_prompt
};

// How one of the [INST] templates writes a conversation of user and assistant in turn.
struct InstStyle {
  std::string_view name;
  bool bos_each_turn = false;  // before each user message, else only at the start
  std::string_view user_open, user_close;
  std::string_view answer_open, answer_close;  // answer_close stands before the end-of-sequence token
  std::string_view after_eos;
  bool trim_user = false, trim_answer = false;
  enum class System { kNone, kFirstMarked, kFirst, kLast } system = System::kNone;
};

class InstTemplate final : public ChatTemplate {
 public:
  InstTemplate(InstStyle style, std::string_view bos, std::string_view eos) : style_(style), bos_(bos), eos_(eos) {}
  std::string_view name() const override { return style_.name; }
  absl::StatusOr<std::vector<TextSegment>> RenderSegments(absl::Span<const ChatMessage> messages,
                                                          bool add_generation_prompt) const override {
    TP_RETURN_IF_ERROR(CheckAlternation(messages, style_.system != InstStyle::System::kNone));
    std::optional<std::string_view> system;
    if (messages[0].role == "system") {
      system = messages[0].content;
      messages.remove_prefix(1);
    }
    ChatPrompt prompt;
    if (!style_.bos_each_turn) prompt.Template(bos_);
    for (size_t i = 0; i < messages.size(); ++i) {
      if (messages[i].role == "user") {
        const size_t carrier = style_.system == InstStyle::System::kLast ? messages.size() - 1 : 0;
        AppendUser(messages[i].content, i == carrier ? system : std::nullopt, &prompt);
      } else {
        const std::string_view answer = messages[i].content;
        prompt.Template(style_.answer_open).Content(style_.trim_answer ? Trim(answer) : answer);
        prompt.Template(style_.answer_close).Template(eos_).Template(style_.after_eos);
      }
    }
    return std::move(prompt).Finish();
  }

 private:
  void AppendUser(std::string_view content, std::optional<std::string_view> system, ChatPrompt* prompt) const {
    if (style_.bos_each_turn) prompt->Template(bos_);
    prompt->Template(style_.user_open);
    std::string_view text = content;
    if (system && style_.system == InstStyle::System::kFirstMarked) {
      // Llama 2 trims the system part and the message together, so of a blank message not even the line breaks before
      // it stay.
      if (style_.trim_user) text = TrimRight(content);
      prompt->Template("<<SYS>>\n").Content(*system).Template(text.empty() ? "\n<</SYS>>" : "\n<</SYS>>\n\n");
    } else if (system) {
      prompt->Content(*system).Template("\n\n");
    } else if (style_.trim_user) {
      text = Trim(content);
    }
    prompt->Content(text).Template(style_.user_close);
  }

  static std::string_view TrimRight(std::string_view text) {
    const std::string_view trimmed = Trim(text);
    return trimmed.empty() ? trimmed
                           : text.substr(0, static_cast<size_t>(trimmed.data() + trimmed.size() - text.data()));
  }

  const InstStyle style_;
  const std::string bos_, eos_;
};

// The literal, in either kind of quotes, occurs in the source.
bool HasLiteral(std::string_view source, const std::string& text) {
  return Contains(source, absl::StrCat("'", text, "'")) || Contains(source, absl::StrCat("\"", text, "\""));
}

}  // namespace

std::unique_ptr<ChatTemplate> RecognizeLlama3(std::string_view source, std::string_view bos) {
  // Derived models (thinking, tools by other means) keep this frame and add to it.
  if (!Contains(source, "'<|start_header_id|>' + message['role'] + '<|end_header_id|>") ||
      !Contains(source, "<|eot_id|>") || !Contains(source, "message['content'] | trim")) {
    return nullptr;
  }
  for (const char* other : {"<think>", "eos_token", ">>>"}) {
    if (Contains(source, other)) return nullptr;
  }
  return std::make_unique<Llama3Template>(bos, Contains(source, "Cutting Knowledge Date"),
                                          !Contains(source, "add_generation_prompt"));
}

std::unique_ptr<ChatTemplate> RecognizeInst(std::string_view source, std::string_view bos, std::string_view eos) {
  using System = InstStyle::System;
  if (!Contains(source, "[INST]") || Contains(source, "[SYSTEM_PROMPT]") || !Contains(source, "bos_token"))
    return nullptr;
  const bool strips = Contains(source, "strip(");  // only Llama 2's does; others that do are of derived models
  InstStyle style;
  if (Contains(source, "<<SYS>>")) {
    if (!Contains(source, "bos_token + '[INST] ' + content.strip() + ' [/INST]'")) return nullptr;
    style = {.name = "llama2",
             .bos_each_turn = true,
             .user_open = "[INST] ",
             .user_close = " [/INST]",
             .answer_open = " ",
             .answer_close = " ",
             .trim_user = true,
             .trim_answer = true,
             .system = System::kFirstMarked};
  } else if (strips) {
    return nullptr;
  } else if (HasLiteral(source, " [INST] ") && HasLiteral(source, " [/INST]")) {
    style = {.name = "mistral",
             .user_open = " [INST] ",
             .user_close = " [/INST]",
             .answer_open = " ",
             .system = System::kFirst};
  } else if (HasLiteral(source, "[INST] ") && HasLiteral(source, "[/INST]")) {
    style = {.name = "mistral",
             .user_open = "[INST] ",
             .user_close = "[/INST]",
             .answer_open = " ",
             .trim_answer = true,
             .system = System::kLast};
  } else if (HasLiteral(source, "[INST] ") && HasLiteral(source, " [/INST]")) {
    style = {.name = "mistral", .user_open = "[INST] ", .user_close = " [/INST]"};
    if (Contains(source, "eos_token + ' '")) style.after_eos = " ";
  } else {
    return nullptr;
  }
  return std::make_unique<InstTemplate>(style, bos, eos);
}

}  // namespace tidepool
