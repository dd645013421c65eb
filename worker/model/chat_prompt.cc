#include "worker/model/chat_prompt.h"

#include "absl/strings/str_cat.h"
#include "worker/model/gguf_parser.h"
#include "worker/model/unicode_text.h"

namespace tidepool {
namespace {

absl::Status BadRole(size_t index, std::string_view role, std::string_view allowed) {
  return absl::InvalidArgumentError(
      absl::StrCat("messages[", index, "].role is \"", Printable(role), "\"; ", std::string(allowed)));
}

// What Python's str.strip removes: White_Space and the four information separators.
bool Strips(const Character& c) {
  return c.character_class == CharClass::kSpace || (c.codepoint >= 0x1c && c.codepoint <= 0x1f);
}

}  // namespace

absl::Status CheckRoles(absl::Span<const ChatMessage> messages, bool tool_allowed) {
  if (messages.empty()) return absl::InvalidArgumentError("messages is empty; at least one is needed");
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string& role = messages[i].role;
    if (role == "system" || role == "user" || role == "assistant" || (tool_allowed && role == "tool")) continue;
    return BadRole(i, role,
                   tool_allowed ? "allowed are system, user, assistant, tool" : "allowed are system, user, assistant");
  }
  return absl::OkStatus();
}

absl::Status CheckAlternation(absl::Span<const ChatMessage> messages, bool system_allowed) {
  absl::Status status = CheckRoles(messages);
  if (!status.ok()) return status;
  const size_t first = messages[0].role == "system" ? 1 : 0;
  if (first == 1 && !system_allowed) return BadRole(0, "system", "this model's template has no system messages");
  if (first == messages.size()) return BadRole(0, "system", "a user message must follow it");
  for (size_t i = first; i < messages.size(); ++i) {
    const char* expected = (i - first) % 2 == 0 ? "user" : "assistant";
    if (messages[i].role != expected) {
      return BadRole(i, messages[i].role, absl::StrCat("this model's template needs ", expected, " here"));
    }
  }
  return absl::OkStatus();
}

std::string_view Trim(std::string_view text) {
  size_t begin = 0;
  for (;;) {
    const Character c = CharacterAt(text, begin);
    if (c.size == 0 || !Strips(c)) break;
    begin += c.size;
  }
  size_t end = begin;  // after the last character that stays
  for (size_t at = begin; at < text.size();) {
    const Character c = CharacterAt(text, at);
    at += c.size;
    if (!Strips(c)) end = at;
  }
  return text.substr(begin, end - begin);
}

}  // namespace tidepool
