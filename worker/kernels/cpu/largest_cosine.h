// The largest of cosines by slot, as LargestCosine of leaving_row.h has it. Included by files that are compiled with
// TIDEPOOL_ISA only.
#ifndef TIDEPOOL_WORKER_KERNELS_CPU_LARGEST_COSINE_H_
#define TIDEPOOL_WORKER_KERNELS_CPU_LARGEST_COSINE_H_

#include <cstdint>
#include <limits>

#include "hwy/highway.h"
#include "worker/kernels/cpu/attention_elements.h"

namespace tidepool::TIDEPOOL_ISA {
namespace {

inline int32_t LargestOf(const float* cosines, int32_t slots, const int32_t* positions) {
  const D d;
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  const V lowest = hn::Set(d, kNone);
  V most = lowest;
  for (int32_t slot = 0; slot < slots; slot += kLanes) {
    const V cosine = hn::LoadU(d, cosines + slot);
    most = hn::Max(most, hn::IfThenElse(hn::IsNaN(cosine), lowest, cosine));
  }
  const float largest = hn::GetLane(hn::MaxOfLanes(d, most));
  if (largest == kNone) return -1;
  int32_t best = -1;
  for (int32_t slot = 0; slot < slots; slot += kLanes) {
    if (hn::AllFalse(d, hn::Eq(hn::LoadU(d, cosines + slot), hn::Set(d, largest)))) continue;
    for (int32_t i = slot; i < slot + kLanes; ++i) {
      if (cosines[i] == largest && (best < 0 || positions[i] < positions[best])) best = i;
    }
  }
  return best;
}

}  // namespace
}  // namespace tidepool::TIDEPOOL_ISA

#endif  // TIDEPOOL_WORKER_KERNELS_CPU_LARGEST_COSINE_H_
