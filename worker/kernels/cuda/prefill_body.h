// Attention of many tokens at once: a head's rows are gathered, its scores and outputs are two products of the library,
// and between them runs the causal softmax.
//
// Bytes moved: 12 for each (query, row): scores written, read and, as halves, written and read again. Bound: memory
// bandwidth.
#ifndef TIDEPOOL_WORKER_KERNELS_CUDA_PREFILL_BODY_H_
#define TIDEPOOL_WORKER_KERNELS_CUDA_PREFILL_BODY_H_

#include "worker/kernels/cuda/attend_body.h"

namespace tidepool::cuda {

inline constexpr int32_t kNeverVisible = 0x7fffffff;

// keys, values [pages * kSlotsOfPage][head_dim]: the rows by slot, zeros in free ones. birth [..]: the first query that
// sees a slot; -1: all do. One CTA for a page.
struct GatherHead {
  static constexpr int kThreads = 128;
  struct Args {
    PageMemoryView memory;
    const HeadPages* head = nullptr;
    uint16_t* keys = nullptr;
    uint16_t* values = nullptr;
    int32_t* birth = nullptr;
    // The slots of the queries' own rows: the i-th is seen from query i on. Written by a second launch (of one CTA
    // row).
    const int32_t* new_slots = nullptr;
    int32_t new_count = 0;
  };
  struct Shared {};

  template <class Cta>
  TP_KERNEL static void Run(Cta& cta, Shared&, const Args& args) {
    if (args.new_slots != nullptr) {
      const int i = cta.x() * kThreads + cta.thread();
      if (i < args.new_count) args.birth[args.new_slots[i]] = i;
      return;
    }
    const PageEntry entry = args.head->entries[cta.x()];
    const int words = args.memory.head_dim / 8;  // of a row
    for (int i = cta.thread(); i < kSlotsOfPage * words; i += kThreads) {
      const int slot = i / words;
      Words4 key = {}, value = {};
      if ((entry.valid >> slot & 1) != 0) {
        key = LoadWords(args.memory.Keys(entry.page) + i * 8);
        value = LoadWords(args.memory.Values(entry.page) + i * 8);
      }
      const int64_t at = static_cast<int64_t>(cta.x()) * kSlotsOfPage * args.memory.head_dim + i * 8;
      StoreWords(args.keys + at, key);
      StoreWords(args.values + at, value);
    }
    if (cta.thread() < kSlotsOfPage) {
      args.birth[cta.x() * kSlotsOfPage + cta.thread()] = (entry.valid >> cta.thread() & 1) != 0 ? -1 : kNeverVisible;
    }
  }
};

// weights = softmax of scores over the slots that a query sees. One CTA for a (query head, token).
// grid: tokens, query heads of the group
struct CausalSoftmax {
  static constexpr int kThreads = 256;
  struct Args {
    const float* scores = nullptr;   // [group][tokens][slots], scaled
    const int32_t* birth = nullptr;  // [slots]
    uint16_t* weights = nullptr;     // [group][tokens][slots]
    float* log_sum = nullptr;        // [group][tokens] log2 of the sum of exp(score)
    int32_t tokens = 0, slots = 0;
    int32_t first_token = 0;  // of the slice: token 0 here is its first_token-th
  };
  struct Shared {
    SharedArray<float, kThreads / 32> maximum, sum;
  };

  template <class Cta>
  TP_KERNEL static void Run(Cta& cta, Shared& shared, const Args& args) {
    const int lane = cta.thread() % 32, warp = cta.thread() / 32, token = args.first_token + cta.x();
    const int64_t row = static_cast<int64_t>(cta.y()) * args.tokens + cta.x();
    const float* scores = args.scores + row * args.slots;
    float maximum = kNoScore;
    for (int i = cta.thread(); i < args.slots; i += kThreads) {
      if (args.birth[i] <= token) maximum = fmaxf(maximum, scores[i]);
    }
    maximum = cta.WarpMax(maximum);
    if (lane == 0) shared.maximum[warp] = maximum;
    cta.Sync();
    for (int w = 0; w < kThreads / 32; ++w) maximum = fmaxf(maximum, shared.maximum[w]);
    float sum = 0;
    for (int i = cta.thread(); i < args.slots; i += kThreads) {
      if (args.birth[i] <= token) sum += Exp2((scores[i] - maximum) * kLog2E);
    }
    sum = cta.WarpSum(sum);
    if (lane == 0) shared.sum[warp] = sum;
    cta.Sync();
    sum = 0;
    for (int w = 0; w < kThreads / 32; ++w) sum += shared.sum[w];
    const float factor = 1.0f / sum;
    for (int i = cta.thread(); i < args.slots; i += kThreads) {
      args.weights[row * args.slots + i] =
          args.birth[i] <= token ? FloatToHalf(Exp2((scores[i] - maximum) * kLog2E) * factor) : uint16_t{0};
    }
    if (cta.thread() == 0) args.log_sum[row] = maximum * kLog2E + log2f(sum);
  }
};

// sums[g][slot] += the probabilities that the queries of a head give a slot, in float32. grid: CeilDiv(slots,
// kThreads), query heads of the group
struct ColumnSums {
  static constexpr int kThreads = 128;
  struct Args {
    CausalSoftmax::Args softmax;
    float* sums = nullptr;  // [group][slots]
    bool add = false;
  };
  struct Shared {};

  template <class Cta>
  TP_KERNEL static void Run(Cta& cta, Shared&, const Args& args) {
    const CausalSoftmax::Args& of = args.softmax;
    const int slot = cta.x() * kThreads + cta.thread();
    if (slot >= of.slots) return;
    const int64_t row = static_cast<int64_t>(cta.y()) * of.tokens;
    float sum = 0;
    for (int t = 0; t < of.tokens; ++t) {
      if (of.birth[slot] > of.first_token + t) continue;
      sum += Exp2(of.scores[(row + t) * of.slots + slot] * kLog2E - of.log_sum[row + t]);
    }
    float& to = args.sums[static_cast<int64_t>(cta.y()) * of.slots + slot];
    to = args.add ? to + sum : sum;
  }
};

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_WORKER_KERNELS_CUDA_PREFILL_BODY_H_
