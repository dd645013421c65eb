// A model's tensors as the CPU kernels want them.
#ifndef TIDEPOOL_WORKER_BACKEND_CPU_CPU_WEIGHTS_H_
#define TIDEPOOL_WORKER_BACKEND_CPU_CPU_WEIGHTS_H_

#include <cstdint>
#include <vector>

#include "worker/kernels/cpu/matmul.h"
#include "worker/kernels/cpu/thread_team.h"
#include "worker/model/model.h"

namespace tidepool {

struct CpuLayerWeights {
  std::vector<float> attention_norm, ffn_norm, q_bias, k_bias, v_bias, q_norm, k_norm;  // empty where there is none
  PackedMatrix q, k, v, output, gate, up, down;
};

class CpuWeights {
 public:
  CpuWeights(const Model& model, bool as_f32, ThreadTeam& team);

  // A token's row of the embedding: the output matrix's where they are one, so that the file's pages are not kept.
  void Embed(int32_t token, float* out) const;

  std::vector<CpuLayerWeights> layers;
  std::vector<float> output_norm;
  PackedMatrix output;

 private:
  const TensorView* embedding_ = nullptr;  // null: it is the output matrix
  HugeMemory memory_;                      // of all matrices
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_BACKEND_CPU_CPU_WEIGHTS_H_
