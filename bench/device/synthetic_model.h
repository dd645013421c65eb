// A model file of a given shape with random weights: for measurements of speed, of a model that is not at hand.
#ifndef TIDEPOOL_BENCH_DEVICE_SYNTHETIC_MODEL_H_
#define TIDEPOOL_BENCH_DEVICE_SYNTHETIC_MODEL_H_

#include <cstdint>
#include <string>

#include "worker/model/tensor_view.h"

namespace tidepool {

// Llama-3.1-8B's.
struct SyntheticShape {
  int layers = 32, width = 4096, heads = 32, kv_heads = 8, ffn_width = 14336, vocabulary = 128256;
  int context_tokens = 131072;
  TensorType type = TensorType::kQ4_K;  // of all matrices
};

// Weights of such a size that activations stay of theirs. False: the file cannot be written.
bool WriteSyntheticModel(const SyntheticShape& shape, const std::string& path);

}  // namespace tidepool

#endif  // TIDEPOOL_BENCH_DEVICE_SYNTHETIC_MODEL_H_
