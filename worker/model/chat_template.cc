#include "worker/model/chat_template.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "worker/model/chatml_template.h"
#include "worker/model/gguf_parser.h"
#include "worker/model/llama_templates.h"

namespace tidepool {

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Recognize(std::string_view source, std::string_view bos,
                                                                      std::string_view eos) {
  std::unique_ptr<ChatTemplate> found = RecognizeChatml(source, bos);
  if (found == nullptr) found = RecognizeLlama3(source, bos);
  if (found == nullptr) found = RecognizeInst(source, bos, eos);
  if (found != nullptr) return found;
  return absl::UnimplementedError(absl::StrCat("the chat template beginning \"", Printable(source.substr(0, 60)),
                                               "\" is not known; supported are chatml, smollm2, qwen2, qwen3, llama3, "
                                               "llama2, mistral"));
}

absl::StatusOr<std::vector<TextSegment>> ChatTemplate::ContinueSegments(absl::Span<const ChatMessage> messages) const {
  // No template writes these by itself, and templates leave them as they are.
  constexpr std::string_view kQuestion = "\x01question\x01", kAnswer = "\x01answer\x01";
  std::vector<ChatMessage> conversation = {{"user", std::string(kQuestion)}, {"assistant", std::string(kAnswer)}};
  conversation.insert(conversation.end(), messages.begin(), messages.end());
  TP_ASSIGN_OR_RETURN(std::vector<TextSegment> segments, RenderSegments(conversation, /*add_generation_prompt=*/true));
  auto answer = segments.begin();
  size_t at = std::string::npos;
  while (answer != segments.end() && (at = answer->text.find(kAnswer)) == std::string::npos) ++answer;
  TIDEPOOL_CHECK(answer != segments.end());
  answer->text.erase(0, at + kAnswer.size());
  if (answer->text.empty()) ++answer;
  segments.erase(segments.begin(), answer);
  // Blanks before the end of the turn are what the model has written or left out.
  TextSegment& first = segments.front();
  first.text.erase(0, std::min(first.text.find_first_not_of(' '), first.text.size()));
  return segments;
}

absl::StatusOr<std::string> ChatTemplate::Render(absl::Span<const ChatMessage> messages,
                                                 bool add_generation_prompt) const {
  TP_ASSIGN_OR_RETURN(const std::vector<TextSegment> segments, RenderSegments(messages, add_generation_prompt));
  std::string text;
  for (const TextSegment& segment : segments) text += segment.text;
  return text;
}

}  // namespace tidepool
