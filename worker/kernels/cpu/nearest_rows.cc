#include "worker/kernels/cpu/nearest_rows.h"

#include "worker/kernels/cpu/isa.h"

namespace tidepool {
namespace {

const NearestRowsKernels& Kernels() {
#ifdef TIDEPOOL_ISA_X86
  switch (ActiveIsa()) {
    case Isa::kAvx512: return cpu_avx512::kNearestRowsKernels;
    case Isa::kAvx2: return cpu_avx2::kNearestRowsKernels;
    case Isa::kBaseline: break;
  }
#endif
  return cpu_baseline::kNearestRowsKernels;
}

}  // namespace

void FindNearestRows(const NearestRowsTask& task) { Kernels().find(task); }

}  // namespace tidepool
