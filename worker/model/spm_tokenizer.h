// SentencePiece BPE (tokenizer.ggml.model "llama"): Llama 1 and 2, Mistral, TinyLlama.
#ifndef TIDEPOOL_WORKER_MODEL_SPM_TOKENIZER_H_
#define TIDEPOOL_WORKER_MODEL_SPM_TOKENIZER_H_

#include <memory>

#include "absl/status/statusor.h"
#include "worker/model/gguf_file.h"
#include "worker/model/tokenizer.h"

namespace tidepool {

absl::StatusOr<std::unique_ptr<Tokenizer>> ReadSpmTokenizer(const GgufFile& file);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_MODEL_SPM_TOKENIZER_H_
