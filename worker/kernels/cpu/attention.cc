#include "worker/kernels/cpu/attention.h"

#include "base/limits.h"
#include "worker/kernels/cpu/isa.h"

namespace tidepool {
namespace {

const AttentionKernels& Kernels() {
  static const AttentionKernels& kernels = []() -> const AttentionKernels& {
#ifdef TIDEPOOL_ISA_X86
    switch (ActiveIsa()) {
      case Isa::kAvx512: return cpu_avx512::kAttentionKernels;
      case Isa::kAvx2: return cpu_avx2::kAttentionKernels;
      case Isa::kBaseline: break;
    }
#endif
    return cpu_baseline::kAttentionKernels;
  }();
  return kernels;
}

int64_t RoundUp(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace

size_t AttentionScratchBytes(int queries, int slots) {
  // Scores by slot and by position for each query, and one page of keys in float32.
  const int64_t row = RoundUp(slots, kPageSlots);
  return static_cast<size_t>((RoundUp(queries, 4) + 1) * row + kPageSlots * kMaxHeadDim) * sizeof(float);
}

void AttendF16(const AttentionTask& task, void* scratch) { Kernels().attend_f16(task, scratch); }
void AttendF32(const AttentionTask& task, void* scratch) { Kernels().attend_f32(task, scratch); }
void ScoreK4Tiles(const K4Task& task) { Kernels().score_k4(task); }
float ExpAndSum(float* x, int32_t count) { return Kernels().exp_and_sum(x, count); }
void SharesOf(const float* x, const float* which, int32_t count, float scale, float* shares, float sums[2]) {
  Kernels().shares_of(x, which, count, scale, shares, sums);
}
int32_t WeighShares(const float* const* shares, const float* factor, int32_t queries, int32_t count, float least,
                    float* weight, int32_t* above) {
  return Kernels().weigh_shares(shares, factor, queries, count, least, weight, above);
}
void FloatToHalf(const float* in, int64_t count, uint16_t* out) { Kernels().float_to_half(in, count, out); }
void HalfToFloat(const uint16_t* in, int64_t count, float* out) { Kernels().half_to_float(in, count, out); }

}  // namespace tidepool
