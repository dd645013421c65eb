// Templates of the Llama and Mistral families: Llama 3 (header ids) and the [INST] forms.
#ifndef TIDEPOOL_WORKER_MODEL_LLAMA_TEMPLATES_H_
#define TIDEPOOL_WORKER_MODEL_LLAMA_TEMPLATES_H_

#include <memory>
#include <string_view>

#include "worker/model/chat_template.h"

namespace tidepool {

// Null when `source` is not one of them.
std::unique_ptr<ChatTemplate> RecognizeLlama3(std::string_view source, std::string_view bos);
std::unique_ptr<ChatTemplate> RecognizeInst(std::string_view source, std::string_view bos, std::string_view eos);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_MODEL_LLAMA_TEMPLATES_H_
