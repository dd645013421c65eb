// The scan of a product-code index: estimated scores of many rows for a few queries (policies/recall/product_code.h).
#ifndef TIDEPOOL_WORKER_KERNELS_CPU_PRODUCT_SCAN_H_
#define TIDEPOOL_WORKER_KERNELS_CPU_PRODUCT_SCAN_H_

#include <cstdint>

namespace tidepool {

// `tiles` tiles of 16 rows, each [groups][16 * bits / 8] bytes as product_code.h lays them out.
struct ProductScanTask {
  const uint8_t* codes = nullptr;
  int32_t tiles = 0;
  int32_t groups = 0;
  int32_t bits = 0;  // 4 or 8
  int32_t queries = 0;
  const float* const* tables = nullptr;  // [queries] of [groups][2^bits]
  float* const* scores = nullptr;        // [queries] of [tiles * 16]: the sum over groups, in their order
};

void ScanProductCodes(const ProductScanTask& task);

struct ProductScanKernels {
  void (*scan)(const ProductScanTask&);
};

namespace cpu_baseline {
extern const ProductScanKernels kProductScanKernels;
}
namespace cpu_avx2 {
extern const ProductScanKernels kProductScanKernels;
}
namespace cpu_avx512 {
extern const ProductScanKernels kProductScanKernels;
}

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KERNELS_CPU_PRODUCT_SCAN_H_
