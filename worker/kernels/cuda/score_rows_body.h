// Scores of given queries over the resident rows of heads, slot by slot: what policies ask for.
//
// Bytes moved: K of every resident row once, a float for each (query, slot). Bound: the results' bandwidth.
#ifndef TIDEPOOL_WORKER_KERNELS_CUDA_SCORE_ROWS_BODY_H_
#define TIDEPOOL_WORKER_KERNELS_CUDA_SCORE_ROWS_BODY_H_

#include "worker/kernels/cuda/attend_body.h"

namespace tidepool::cuda {

struct ScoreJob {
  HeadPages head;
  const float* q = nullptr;        // [queries][head_dim]
  const float* log_sum = nullptr;  // [queries], as MergeSplits leaves it; null: scores are wanted
  float* out = nullptr;            // [queries][head.pages * kSlotsOfPage]: scores, else probabilities; free slots: 0
  int32_t queries = 0;
  int32_t unused = 0;
};

// grid: CeilDiv(most pages, kThreads / 32), jobs
template <int kLanes>
struct ScoreRows {
  static constexpr int kThreads = 128;
  static constexpr int kRowsAtOnce = 32 / kLanes;
  static constexpr int kSteps = kSlotsOfPage / kRowsAtOnce;
  struct Args {
    PageMemoryView memory;
    const ScoreJob* jobs = nullptr;
    float scale = 0;
  };
  struct Shared {};

  template <class Cta>
  TP_KERNEL static void Run(Cta& cta, Shared&, const Args& args) {
    const ScoreJob job = args.jobs[cta.y()];
    const int lane = cta.thread() % 32, page = cta.x() * (kThreads / 32) + cta.thread() / 32;
    const int head_dim = args.memory.head_dim, channel = lane % kLanes * 8;
    if (page >= job.head.pages) return;  // the whole warp
    const PageEntry entry = job.head.entries[page];
    const uint16_t* keys = entry.valid == 0 ? nullptr : args.memory.Keys(entry.place) + channel;
    const int64_t slots = static_cast<int64_t>(job.head.pages) * kSlotsOfPage;
    for (int j = 0; j < job.queries; ++j) {
      float q[8];
      for (int i = 0; i < 8; ++i)
        q[i] = channel < head_dim ? job.q[static_cast<int64_t>(j) * head_dim + channel + i] : 0;
      float scores[kSteps];
#ifdef __CUDACC__
#pragma unroll
#endif
      for (int step = 0; step < kSteps; ++step) {
        const int slot = step * kRowsAtOnce + lane / kLanes;
        const bool exists = (entry.valid >> slot & 1) != 0 && channel < head_dim;
        float key[8] = {};
        if (entry.precision == KvPrecision::kF16) {
          LoadChannels(keys + slot * head_dim, exists, key);
        } else if (exists) {
          const PackedRows packed(args.memory, entry.place, entry.precision, channel);
          packed.KeyOf(packed.LoadKey(entry.half * kSlotsOfPage + slot), key);
        }
        scores[step] = 0;
        for (int i = 0; i < 8; ++i) scores[step] += q[i] * key[i];
      }
      cta.template GroupSum<kLanes>(scores);
      if (lane % kLanes != 0) continue;
      for (int step = 0; step < kSteps; ++step) {
        const int slot = step * kRowsAtOnce + lane / kLanes;
        float score = scores[step] * args.scale;
        if (job.log_sum != nullptr) score = Exp2(score * kLog2E - job.log_sum[j]);
        job.out[j * slots + static_cast<int64_t>(page) * kSlotsOfPage + slot] =
            (entry.valid >> slot & 1) != 0 ? score : 0.0f;
      }
    }
  }
};

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_WORKER_KERNELS_CUDA_SCORE_ROWS_BODY_H_
