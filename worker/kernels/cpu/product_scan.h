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
  // 8 bits: [queries] of [groups][256]. A score is the sum over groups, in their order.
  const float* const* tables = nullptr;
  // 4 bits: [queries] of [groups][16] entries of at most 127, and each query's offset and step: a score is offset +
  // step * (sum of entries). An even number of groups, at most 512.
  const uint8_t* const* entries = nullptr;
  const float* offset = nullptr;
  const float* step = nullptr;
  float* const* scores = nullptr;  // [queries] of [tiles * 16]
};

void ScanProductCodes(const ProductScanTask& task);

// The tables of 4-bit codes of one query, rounded: ProductScoreTable and RoundScoreTable
// (policies/recall/product_code.h) in one, the same bits.
struct RoundedTableTask {
  int32_t groups = 0;
  int32_t width = 0;                  // places of a group
  const uint8_t* channel = nullptr;   // [groups * width]
  const uint8_t* centroid = nullptr;  // [groups * width][16]
  const float* offset = nullptr;      // [groups * width]
  const float* scale = nullptr;       // [groups * width]
  const float* query = nullptr;
  float* table = nullptr;      // [groups][16], for its own use
  uint8_t* entries = nullptr;  // [groups][16]
};
// A row's score is offset + step * (sum of its entries).
struct RoundedScale {
  float offset = 0, step = 0;
};

RoundedScale RoundedProductTable(const RoundedTableTask& task);

struct ProductScanKernels {
  void (*scan)(const ProductScanTask&);
  void (*rounded_table)(const RoundedTableTask&, RoundedScale*);
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
