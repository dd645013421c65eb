// The numbers of a model: architecture, shapes, rotary embedding.
#ifndef TIDEPOOL_WORKER_MODEL_MODEL_CONFIG_H_
#define TIDEPOOL_WORKER_MODEL_MODEL_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace tidepool {

class GgufFile;

struct ModelConfig {
  std::string architecture;  // llama, qwen2, qwen3
  std::string name;          // general.name
  int layers = 0;
  int width = 0;     // residual stream
  int heads = 0;     // query heads
  int kv_heads = 0;  // divides heads
  int head_dim = 0;  // 16 to 256, a multiple of 16
  int ffn_width = 0;
  int vocabulary = 0;
  int context_tokens = 0;  // trained length
  float rms_epsilon = 1e-5f;
  // Rotary embedding over the first rope_dims dimensions of a head. Pair i of rope_dims / 2 turns by position *
  // rope_frequencies[i] (scaling and base folded in); cos and sin are multiplied by rope_magnitude (1 except for yarn).
  int rope_dims = 0;
  bool rope_neox = false;  // pairs (i, i + rope_dims/2); else neighbours (2i, 2i + 1)
  std::vector<float> rope_frequencies;
  float rope_magnitude = 1;
  bool qkv_bias = false;  // qwen2
  bool qk_norm = false;   // qwen3: RMS norm of each head's q and k before the rotation
};

// Reads and checks the keys ARCHITECTURE.* and the tensor rope_freqs.weight. Unimplemented naming an architecture or
// feature that we do not compute; InvalidArgument naming a key, its value and the allowed range; NotFound naming a
// missing key.
absl::StatusOr<ModelConfig> ReadModelConfig(const GgufFile& file);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_MODEL_MODEL_CONFIG_H_
