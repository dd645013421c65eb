// Byte-level BPE (tokenizer.ggml.model "gpt2"): GPT-2, SmolLM2, Llama 3, Qwen.
#ifndef TIDEPOOL_WORKER_MODEL_BPE_TOKENIZER_H_
#define TIDEPOOL_WORKER_MODEL_BPE_TOKENIZER_H_

#include <memory>

#include "absl/status/statusor.h"
#include "worker/model/gguf_file.h"
#include "worker/model/tokenizer.h"

namespace tidepool {

absl::StatusOr<std::unique_ptr<Tokenizer>> ReadBpeTokenizer(const GgufFile& file);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_MODEL_BPE_TOKENIZER_H_
