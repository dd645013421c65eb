#include "worker/kernels/cpu/leaving_row.h"

#include <cmath>

#include "policies/kv/kv_layout.h"
#include "worker/kernels/cpu/isa.h"

namespace tidepool {
namespace {

const LeavingRowKernels& Kernels() {
#ifdef TIDEPOOL_ISA_X86
  switch (ActiveIsa()) {
    case Isa::kAvx512: return cpu_avx512::kLeavingRowKernels;
    case Isa::kAvx2: return cpu_avx2::kLeavingRowKernels;
    case Isa::kBaseline: break;
  }
#endif
  return cpu_baseline::kLeavingRowKernels;
}

}  // namespace

float LengthOf(const float* vector, int32_t head_dim) {
  float square = 0;
  for (int32_t c = 0; c < head_dim; ++c) square += vector[c] * vector[c];
  return std::sqrt(square);
}

void CosinesWithKeys(KvType type, const KeysTask& task, float* cosines) {
  const LeavingRowKernels& kernels = Kernels();
  (type == KvType::kF16 ? kernels.cosines_f16 : kernels.cosines_f32)(task, cosines);
}

int32_t LargestCosine(const float* cosines, int32_t slots, const int32_t* positions) {
  return Kernels().largest(cosines, slots, positions);
}

}  // namespace tidepool
