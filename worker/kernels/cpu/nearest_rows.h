// For many vectors the row that each is most like: D2O's merge targets (policies/retain/merge.h) at the end of a
// prompt.
#ifndef TIDEPOOL_WORKER_KERNELS_CPU_NEAREST_ROWS_H_
#define TIDEPOOL_WORKER_KERNELS_CPU_NEAREST_ROWS_H_

#include <cstdint>

namespace tidepool {

inline constexpr int kNearestBlock = 16;  // rows side by side

struct NearestRowsTask {
  const float* rows = nullptr;  // [ceil(count / kNearestBlock)][dim][kNearestBlock], finite
  int32_t count = 0;
  int32_t dim = 0;
  const float* vectors = nullptr;  // [vector_count][dim], finite
  int32_t vector_count = 0;
  // [vector_count] the largest product with a row, summed in the order of the channels, and the first row that has it.
  float* best = nullptr;
  int32_t* row = nullptr;
};

// count >= 1.
void FindNearestRows(const NearestRowsTask& task);

struct NearestRowsKernels {
  void (*find)(const NearestRowsTask&);
};

namespace cpu_baseline {
extern const NearestRowsKernels kNearestRowsKernels;
}
namespace cpu_avx2 {
extern const NearestRowsKernels kNearestRowsKernels;
}
namespace cpu_avx512 {
extern const NearestRowsKernels kNearestRowsKernels;
}

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KERNELS_CPU_NEAREST_ROWS_H_
