#include "worker/kernels/cpu/product_scan.h"

#include "worker/kernels/cpu/isa.h"

namespace tidepool {
namespace {

const ProductScanKernels& Kernels() {
#ifdef TIDEPOOL_ISA_X86
  switch (ActiveIsa()) {
    case Isa::kAvx512: return cpu_avx512::kProductScanKernels;
    case Isa::kAvx2: return cpu_avx2::kProductScanKernels;
    case Isa::kBaseline: break;
  }
#endif
  return cpu_baseline::kProductScanKernels;
}

}  // namespace

void ScanProductCodes(const ProductScanTask& task) { Kernels().scan(task); }

RoundedScale RoundedProductTable(const RoundedTableTask& task) {
  RoundedScale scale;
  Kernels().rounded_table(task, &scale);
  return scale;
}

}  // namespace tidepool
