// Messages to prompt text by the template that the model carries. We recognise the templates of the supported families
// (docs/models.md lists them) and write what they would; an unknown one is an error that shows how it begins.
#ifndef TIDEPOOL_WORKER_MODEL_CHAT_TEMPLATE_H_
#define TIDEPOOL_WORKER_MODEL_CHAT_TEMPLATE_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/model/text_segment.h"

namespace tidepool {

struct ChatMessage {
  std::string role;  // system, user, assistant; tool where the template frames it like the others
  std::string content;
};

class ChatTemplate {
 public:
  virtual ~ChatTemplate() = default;
  // `source`: tokenizer.chat_template of the file. Unimplemented with the first 60 characters of an unknown template.
  static absl::StatusOr<std::unique_ptr<ChatTemplate>> Recognize(std::string_view source, std::string_view bos,
                                                                 std::string_view eos);
  virtual std::string_view name() const = 0;  // chatml, smollm2, llama3, llama2, mistral, qwen2, qwen3
  // InvalidArgument naming messages[i].role when it is unknown or out of order, or when there are no messages.
  // The text holds the begin-of-sequence token where the template writes it, so encode it without add_special.
  // What users wrote is untrusted (parse_special false) in the segments: encoded with EncodeSegments it cannot end its
  // turn or open another one. Render joins the segments; encoded with parse_special it can.
  virtual absl::StatusOr<std::vector<TextSegment>> RenderSegments(absl::Span<const ChatMessage> messages,
                                                                  bool add_generation_prompt) const = 0;
  // What follows an answer in a prompt that goes on with `messages`: the end of the answer's turn, which begins with
  // the token that ends it, and the messages, without what the template writes at its beginning only. Errors as
  // RenderSegments, for a conversation of a user's message and an answer before `messages`.
  absl::StatusOr<std::vector<TextSegment>> ContinueSegments(absl::Span<const ChatMessage> messages) const;
  absl::StatusOr<std::string> Render(absl::Span<const ChatMessage> messages, bool add_generation_prompt) const;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_MODEL_CHAT_TEMPLATE_H_
