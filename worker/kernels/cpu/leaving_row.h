// What a policy asks of a head that gives up one row in a step: which row has received least attention, and which key
// is most like that row's.
#ifndef TIDEPOOL_WORKER_KERNELS_CPU_LEAVING_ROW_H_
#define TIDEPOOL_WORKER_KERNELS_CPU_LEAVING_ROW_H_

#include <cstdint>

namespace tidepool {

enum class KvType : uint8_t;  // policies/kv/kv_layout.h, which is no light header

struct LeastSumTask {
  const float* const* sums = nullptr;  // [arrays] by slot
  int32_t arrays = 0;
  // A row's score: the largest of its sums, at least 0, or all of them together; divided by `divisor`.
  bool largest = false;
  float divisor = 1;
  const int32_t* positions = nullptr;  // [slots] of their rows; negative: none
  int32_t slots = 0;                   // a multiple of kPageSlots
  int32_t first = 0, end = 0;          // positions [first, end) are asked about
};
// The slot whose row has the lowest score, of equal ones that with the highest position; not-a-number is lowest. As
// WorstIndex of policies/retain/token_scores.h has it.
struct LeastSum {
  int32_t slot = -1;  // -1: there is none
  float others = 0;   // the lowest score of all others; infinity: there are none
};
LeastSum LeastSumRow(const LeastSumTask& task);
// Of one slot, the same bits.
float SumScore(const LeastSumTask& task, int32_t slot);

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
  LeastSum (*least_sum)(const LeastSumTask&);
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
