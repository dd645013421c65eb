// The best logits of rows, in the order of worker/engine/top_logits.h: a draw among a few tokens needs no more of a
// vocabulary.
#ifndef TIDEPOOL_WORKER_KERNELS_CUDA_BEST_LOGITS_BODY_H_
#define TIDEPOOL_WORKER_KERNELS_CUDA_BEST_LOGITS_BODY_H_

#include "worker/kernels/cuda/cta.h"

namespace tidepool::cuda {

// Of each part of a row the `count` best, best first: the largest is taken out count times. What parts leave is a row
// of parts * count for another launch, until one part is left. Bytes: each value once. Bound: the barriers, two for
// each of the best. grid: CeilDiv(values, kValues), rows
struct BestLogits {
  static constexpr int kThreads = 256;
  static constexpr int kEach = 16;
  static constexpr int kValues = kThreads * kEach;  // of a part
  static constexpr int kWarps = kThreads / 32;
  struct Args {
    const float* logits = nullptr;  // [rows][values]; NaN and -inf never count
    const int32_t* ids = nullptr;   // likewise, less than 2^24; null: places in the row
    int32_t values = 0;
    int32_t count = 0;
    float* best = nullptr;        // [rows][parts][count]; NaN where there are fewer
    int32_t* best_ids = nullptr;  // likewise; -1
  };
  struct Shared {
    SharedArray<float, 2 * kWarps> logit;  // of rounds in turn, so that none is overwritten before all have read it
    SharedArray<int32_t, 2 * kWarps> id;
  };

  template <class Cta>
  TP_KERNEL static void Run(Cta& cta, Shared& shared, const Args& args) {
    const int lane = cta.thread() % 32, warp = cta.thread() / 32;
    const int64_t row = static_cast<int64_t>(cta.y()) * args.values;
    float logits[kEach];
    int32_t ids[kEach];
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int i = 0; i < kEach; ++i) {
      const int at = cta.x() * kValues + i * kThreads + cta.thread();
      const bool exists = at < args.values;
      logits[i] = exists ? args.logits[row + at] : kNone;
      ids[i] = !exists ? -1 : args.ids != nullptr ? args.ids[row + at] : at;
      if (!(logits[i] > kNone)) ids[i] = -1;
    }
    const int64_t to = (static_cast<int64_t>(cta.y()) * cta.grid().x + cta.x()) * args.count;
    for (int n = 0; n < args.count; ++n) {
      float logit = kNone;
      int32_t id = -1;
#ifdef __CUDACC__
#pragma unroll
#endif
      for (int i = 0; i < kEach; ++i) Take(logits[i], ids[i], logit, id);
      // Over the warp: the largest, and of those the lowest id.
      const float most = cta.WarpMax(logit);
      const float least = cta.WarpMax(id >= 0 && logit == most ? -static_cast<float>(id) : kNone);
      const int turn = n % 2 * kWarps;
      if (lane == 0) {
        shared.logit[turn + warp] = most;
        shared.id[turn + warp] = least == kNone ? -1 : static_cast<int32_t>(-least);
      }
      cta.Sync();
      logit = kNone;
      id = -1;
      for (int w = 0; w < kWarps; ++w) Take(shared.logit[turn + w], shared.id[turn + w], logit, id);
      if (cta.thread() == 0) {
        args.best[to + n] = id < 0 ? NAN : logit;
        args.best_ids[to + n] = id;
      }
#ifdef __CUDACC__
#pragma unroll
#endif
      for (int i = 0; i < kEach; ++i) {
        if (ids[i] == id) ids[i] = -1;  // taken
      }
    }
  }

 private:
  static constexpr float kNone = -INFINITY;

  TP_KERNEL static void Take(float other, int32_t its_id, float& logit, int32_t& id) {
    if (its_id < 0) return;
    if (id < 0 || other > logit || (other == logit && its_id < id)) {
      logit = other;
      id = its_id;
    }
  }
};

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_WORKER_KERNELS_CUDA_BEST_LOGITS_BODY_H_
