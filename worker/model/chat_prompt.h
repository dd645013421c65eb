// Collects a prompt from trusted template text and untrusted message content, and checks the order of roles.
#ifndef TIDEPOOL_WORKER_MODEL_CHAT_PROMPT_H_
#define TIDEPOOL_WORKER_MODEL_CHAT_PROMPT_H_

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "worker/model/chat_template.h"

namespace tidepool {

class ChatPrompt {
 public:
  ChatPrompt& Template(std::string_view text) { return Append(text, true); }
  ChatPrompt& Content(std::string_view text) { return Append(text, false); }
  std::vector<TextSegment> Finish() && { return std::move(segments_); }

 private:
  ChatPrompt& Append(std::string_view text, bool trusted) {
    if (text.empty()) return *this;
    if (segments_.empty() || segments_.back().parse_special != trusted) segments_.push_back({"", trusted});
    segments_.back().text.append(text);
    return *this;
  }

  std::vector<TextSegment> segments_;
};

// InvalidArgument naming messages[i].role: at least one message, only the roles system, user, assistant, and tool where
// the template frames a tool's answer like any other message.
absl::Status CheckRoles(absl::Span<const ChatMessage> messages, bool tool_allowed = false);
// Also: system only as the first message (not at all when `system_allowed` is false), then user and assistant in turn.
absl::Status CheckAlternation(absl::Span<const ChatMessage> messages, bool system_allowed);
// Without white space at both ends, as the filters `trim` and strip() of the templates do.
std::string_view Trim(std::string_view text);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_MODEL_CHAT_PROMPT_H_
