// A model's tensors in device memory, quantised as in the file (worker/kernels/cuda/matrix_format.h).
#ifndef TIDEPOOL_WORKER_BACKEND_CUDA_DEVICE_WEIGHTS_H_
#define TIDEPOOL_WORKER_BACKEND_CUDA_DEVICE_WEIGHTS_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/kernels/cpu/thread_team.h"
#include "worker/kernels/cuda/device.h"
#include "worker/model/model.h"

namespace tidepool::cuda {

struct LoadedMatrix;

struct DeviceLayer {
  // [width] or [head_dim]; null where there is none.
  const float *attention_norm = nullptr, *ffn_norm = nullptr, *q_bias = nullptr, *k_bias = nullptr, *v_bias = nullptr,
              *q_norm = nullptr, *k_norm = nullptr;
  DeviceMatrix q, k, v, output, gate, up, down;
};

class DeviceWeights {
 public:
  // ResourceExhausted when they do not fit. as_f32: dequantised (debugging and reference tests).
  static absl::StatusOr<std::unique_ptr<DeviceWeights>> Load(const Model& model, bool as_f32, Device* device,
                                                             ThreadTeam& team);
  ~DeviceWeights();
  DeviceWeights(const DeviceWeights&) = delete;
  DeviceWeights& operator=(const DeviceWeights&) = delete;

  std::vector<DeviceLayer> layers;
  DeviceMatrix embedding, output;
  const float* output_norm = nullptr;
  size_t bytes = 0;

 private:
  explicit DeviceWeights(Device* device) : device_(device) {}

  Device* const device_;
  std::vector<void*> memory_;
  friend class WeightLoader;
  friend absl::StatusOr<std::unique_ptr<LoadedMatrix>> LoadMatrix(const TensorView&, Device*, ThreadTeam&);
};

// One tensor alone, with its memory.
struct LoadedMatrix {
  DeviceMatrix matrix;
  std::unique_ptr<DeviceWeights> owner;
};
absl::StatusOr<std::unique_ptr<LoadedMatrix>> LoadMatrix(const TensorView& tensor, Device* device, ThreadTeam& team);

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_WORKER_BACKEND_CUDA_DEVICE_WEIGHTS_H_
