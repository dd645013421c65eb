#include "worker/kernels/cpu/elementwise.h"

#include <cmath>

#include "worker/kernels/cpu/elementwise_kernels.h"
#include "worker/kernels/cpu/isa.h"

namespace tidepool {
namespace {

const ElementwiseKernels& Kernels() {
  static const ElementwiseKernels& kernels = []() -> const ElementwiseKernels& {
#ifdef TIDEPOOL_ISA_X86
    switch (ActiveIsa()) {
      case Isa::kAvx512: return cpu_avx512::kElementwiseKernels;
      case Isa::kAvx2: return cpu_avx2::kElementwiseKernels;
      case Isa::kBaseline: break;
    }
#endif
    return cpu_baseline::kElementwiseKernels;
  }();
  return kernels;
}

}  // namespace

void RmsNorm(const float* x, const float* weight, float epsilon, int64_t size, float* out) {
  Kernels().rms_norm(x, weight, epsilon, size, out);
}

void RopeTable(const float* frequencies, int pairs, float magnitude, int64_t position, float* cosine, float* sine) {
  for (int i = 0; i < pairs; ++i) {
    const double angle = static_cast<double>(position) * frequencies[i];
    cosine[i] = static_cast<float>(std::cos(angle) * magnitude);
    sine[i] = static_cast<float>(std::sin(angle) * magnitude);
  }
}

void RopeRotate(float* head, const float* cosine, const float* sine, int pairs, bool neox) {
  Kernels().rope_rotate(head, cosine, sine, pairs, neox);
}

void SiluMultiply(float* gate, const float* up, int64_t size) { Kernels().silu_multiply(gate, up, size); }
void AddInPlace(float* x, const float* y, int64_t size) { Kernels().add_in_place(x, y, size); }

}  // namespace tidepool
