// The element-wise kernels of one instruction set; worker/kernels/cpu/elementwise.h says what they do.
#ifndef TIDEPOOL_WORKER_KERNELS_CPU_ELEMENTWISE_KERNELS_H_
#define TIDEPOOL_WORKER_KERNELS_CPU_ELEMENTWISE_KERNELS_H_

#include <cstdint>

namespace tidepool {

struct ElementwiseKernels {
  void (*rms_norm)(const float*, const float*, float, int64_t, float*);
  void (*rope_rotate)(float*, const float*, const float*, int, bool);
  void (*silu_multiply)(float*, const float*, int64_t);
  void (*add_in_place)(float*, const float*, int64_t);
};

namespace cpu_baseline {
extern const ElementwiseKernels kElementwiseKernels;
}
namespace cpu_avx2 {
extern const ElementwiseKernels kElementwiseKernels;
}
namespace cpu_avx512 {
extern const ElementwiseKernels kElementwiseKernels;
}

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KERNELS_CPU_ELEMENTWISE_KERNELS_H_
