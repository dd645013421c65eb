// The memory behind Activations, for matmul.cc and tests.
#ifndef TIDEPOOL_WORKER_KERNELS_CPU_ACTIVATIONS_H_
#define TIDEPOOL_WORKER_KERNELS_CPU_ACTIVATIONS_H_

#include <cstdint>
#include <vector>

#include "worker/kernels/cpu/matmul.h"
#include "worker/kernels/cpu/matmul_kernels.h"

namespace tidepool {

struct Activations::Data {
  const float* x = nullptr;  // [count][columns]
  int64_t count = 0, columns = 0;
  bool quantized = false;
  std::vector<ActivationBlock> blocks;  // [count][columns / kBlockInputs], in panels; grows only
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KERNELS_CPU_ACTIVATIONS_H_
