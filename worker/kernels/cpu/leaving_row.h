// What a policy asks of a head that gives up one row in a step: which key is most like that row's.
#ifndef TIDEPOOL_WORKER_KERNELS_CPU_LEAVING_ROW_H_
#define TIDEPOOL_WORKER_KERNELS_CPU_LEAVING_ROW_H_

#include <cstdint>

namespace tidepool {

enum class KvType : uint8_t;  // policies/kv/kv_layout.h, which is no light header

// Plain rows of a head, where attention finds their keys (attention.h).
struct KeysTask {
  const void* const* pages = nullptr;  // [slots / kPageSlots] null: no row lies there
  int32_t slots = 0;                   // a multiple of kPageSlots
  int32_t head_dim = 0;
  const float* vector = nullptr;  // [head_dim]
  float length = 0;               // its length
};
float LengthOf(const float* vector, int32_t head_dim);
// cosines[slot] = vector . key / (length * |key|) of all slots, sums in order of the channels; -infinity where no row
// can lie.
void CosinesWithKeys(KvType type, const KeysTask& task, float* cosines);

// The slot with the largest of `slots` cosines, a multiple of kPageSlots; of equal ones that with the lowest position.
// -1: none is more than -infinity. Not-a-number counts as that.
int32_t LargestCosine(const float* cosines, int32_t slots, const int32_t* positions);

struct LeavingRowKernels {
  void (*cosines_f16)(const KeysTask&, float*);
  void (*cosines_f32)(const KeysTask&, float*);
  int32_t (*largest)(const float* cosines, int32_t slots, const int32_t* positions);
};

namespace cpu_baseline {
extern const LeavingRowKernels kLeavingRowKernels;
}
namespace cpu_avx2 {
extern const LeavingRowKernels kLeavingRowKernels;
}
namespace cpu_avx512 {
extern const LeavingRowKernels kLeavingRowKernels;
}

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KERNELS_CPU_LEAVING_ROW_H_
