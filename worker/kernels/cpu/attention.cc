#include "worker/kernels/cpu/attention.h"

#include "policies/kv/kv_layout.h"
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

const AttentionKernels::OfType& Kernels(KvType type) { return type == KvType::kF16 ? Kernels().f16 : Kernels().f32; }

}  // namespace

void Attend(KvType type, const AttentionTask& task, float* scratch) { Kernels(type).attend(task, scratch); }
void ScorePages(KvType type, const AttentionTask& task, int32_t first, int32_t end, float* scores, float* scratch) {
  Kernels(type).score_pages(task, first, end, scores, scratch);
}
void AttendPart(KvType type, const AttentionTask& task, int32_t part, int32_t next, const float* scores, float* weights,
                float* partial, float* scratch) {
  Kernels(type).attend_part(task, part, next, scores, weights, partial, scratch);
}
void MergeParts(const AttentionTask& task, const float* partials, float* scores, float* sums) {
  Kernels().merge_parts(task, partials, scores, sums);
}
void GivePart(const AttentionTask& task, int32_t part, const float* weights, const float* partial, const float* sums) {
  Kernels().give_part(task, part, weights, partial, sums);
}
float ExpAndSum(float* x, int32_t count) { return Kernels().exp_and_sum(x, count); }
void FloatToHalf(const float* in, int64_t count, uint16_t* out) { Kernels().float_to_half(in, count, out); }
void HalfToFloat(const uint16_t* in, int64_t count, float* out) { Kernels().half_to_float(in, count, out); }

}  // namespace tidepool
