#include "worker/kernels/cpu/leaving_row.h"

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

int32_t LeastSumRow(const LeastSumTask& task) { return Kernels().least_sum(task); }

void CosinesWithKeys(KvType type, const KeysTask& task, float* cosines) {
  const LeavingRowKernels& kernels = Kernels();
  (type == KvType::kF16 ? kernels.cosines_f16 : kernels.cosines_f32)(task, cosines);
}

int32_t LargestCosine(const float* cosines, int32_t slots, const int32_t* positions) {
  return Kernels().largest(cosines, slots, positions);
}

}  // namespace tidepool
