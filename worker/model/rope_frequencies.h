// The rotary embedding's frequencies from a file's keys: base, linear scaling, yarn, and per-pair factors (Llama 3).
#ifndef TIDEPOOL_WORKER_MODEL_ROPE_FREQUENCIES_H_
#define TIDEPOOL_WORKER_MODEL_ROPE_FREQUENCIES_H_

#include "absl/status/status.h"
#include "worker/model/gguf_file.h"
#include "worker/model/model_config.h"

namespace tidepool {

// Fills rope_dims, rope_frequencies and rope_magnitude. Needs architecture, head_dim and context_tokens.
absl::Status ReadRope(const GgufFile& file, ModelConfig* config);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_MODEL_ROPE_FREQUENCIES_H_
