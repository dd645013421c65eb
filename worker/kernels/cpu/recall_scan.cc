#include "worker/kernels/cpu/recall_scan.h"

#include "worker/kernels/cpu/isa.h"

namespace tidepool {
namespace {

const RecallScanKernels& Kernels() {
  static const RecallScanKernels& kernels = []() -> const RecallScanKernels& {
#ifdef TIDEPOOL_ISA_X86
    switch (ActiveIsa()) {
      case Isa::kAvx512: return cpu_avx512::kRecallScanKernels;
      case Isa::kAvx2: return cpu_avx2::kRecallScanKernels;
      case Isa::kBaseline: break;
    }
#endif
    return cpu_baseline::kRecallScanKernels;
  }();
  return kernels;
}

}  // namespace

void ScoreK4Tiles(const K4Task& task) { Kernels().score_k4(task); }
void SharesOf(const float* x, const uint8_t* which, int32_t count, float scale, float* shares, ShareSums* sums) {
  Kernels().shares_of(x, which, count, scale, shares, sums);
}
WeightSums SumWeights(const WeighRowsTask& task) {
  WeightSums sums;
  Kernels().sum_weights(task, &sums);
  return sums;
}
int32_t ListRows(const WeighRowsTask& task, const ListedRows& listed) { return Kernels().list_rows(task, listed); }
int32_t WeighShares(const WeighSharesTask& task) { return Kernels().weigh_shares(task); }
float CorrectShares(const float* estimate, const float* exact, int32_t count, float scale, float* shares) {
  return Kernels().correct_shares(estimate, exact, count, scale, shares);
}
void DotHalves(const HalfRows& rows, int32_t queries, const float* const* q, float* const* scores) {
  Kernels().dot_halves(rows, queries, q, scores);
}
void DotHalvesAt(const uint16_t* const* keys, int32_t count, int32_t head_dim, int32_t queries, const float* const* q,
                 float* const* scores) {
  Kernels().dot_halves_at(keys, count, head_dim, queries, q, scores);
}

}  // namespace tidepool
