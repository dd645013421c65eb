#include "worker/model/chat_template.h"

#include "absl/strings/str_cat.h"
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

absl::StatusOr<std::string> ChatTemplate::Render(absl::Span<const ChatMessage> messages,
                                                 bool add_generation_prompt) const {
  TP_ASSIGN_OR_RETURN(const std::vector<TextSegment> segments, RenderSegments(messages, add_generation_prompt));
  std::string text;
  for (const TextSegment& segment : segments) text += segment.text;
  return text;
}

}  // namespace tidepool
