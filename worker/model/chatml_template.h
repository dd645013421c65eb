// Templates that frame messages by <|im_start|> and <|im_end|>: ChatML, SmolLM2, Qwen 2, 2.5 and 3.
#ifndef TIDEPOOL_WORKER_MODEL_CHATML_TEMPLATE_H_
#define TIDEPOOL_WORKER_MODEL_CHATML_TEMPLATE_H_

#include <memory>
#include <string_view>

#include "worker/model/chat_template.h"

namespace tidepool {

// Null when `source` is not one of them.
std::unique_ptr<ChatTemplate> RecognizeChatml(std::string_view source, std::string_view bos);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_MODEL_CHATML_TEMPLATE_H_
