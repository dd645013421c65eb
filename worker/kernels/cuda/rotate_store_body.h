// Between a layer's projections and its attention: rotary positions, norms of heads (qwen3), and the new rows into
// their slots.
//
// A warp for each (token, head): first the query heads, then those of K, then those of V. Bytes: q, k and v once each
// way. Bound: memory bandwidth; tiny beside the products.
#ifndef TIDEPOOL_WORKER_KERNELS_CUDA_ROTATE_STORE_BODY_H_
#define TIDEPOOL_WORKER_KERNELS_CUDA_ROTATE_STORE_BODY_H_

#include "worker/kernels/cuda/slot_pages.h"

namespace tidepool::cuda {

// The slices of a step, in device memory.
struct StepTokens {
  const int32_t* slice = nullptr;  // [tokens] whose token it is
  const float* cosine = nullptr;   // [tokens][pairs]
  const float* sine = nullptr;     // likewise
};

struct RotateAndStore {
  static constexpr int kThreads = 32;
  struct Args {
    StepTokens step;
    PageMemoryView memory;
    const HeadPages* heads = nullptr;  // [slices][kv_heads] of this layer
    const int32_t* slots = nullptr;    // [kv_heads][tokens] of this layer: the slot of a token's row in its head
    int32_t tokens = 0, query_heads = 0, kv_heads = 0, head_dim = 0, pairs = 0;
    bool neox = false;
    float* q = nullptr;             // [tokens][query_heads][head_dim], rotated in place
    uint16_t* q_half = nullptr;     // likewise, or null
    const float* k = nullptr;       // [tokens][kv_heads][head_dim]
    const float* v = nullptr;       // likewise
    const float* q_norm = nullptr;  // [head_dim], or null
    const float* k_norm = nullptr;
    float epsilon = 0;
    uint16_t* fresh = nullptr;  // [kv_heads][tokens][2 * head_dim]: the stored rows once more, together
  };
  struct Shared {};
  static Grid GridOf(const Args& args) { return {args.tokens, args.query_heads + 2 * args.kv_heads, 1}; }

  template <class Cta>
  TP_KERNEL static void Run(Cta& cta, Shared&, const Args& args) {
    const int token = cta.x(), lane = cta.thread(), head_dim = args.head_dim;
    int head = cta.y();
    if (head < args.query_heads) {
      float* q = args.q + (static_cast<int64_t>(token) * args.query_heads + head) * head_dim;
      uint16_t* half = args.q_half == nullptr
                           ? nullptr
                           : args.q_half + (static_cast<int64_t>(token) * args.query_heads + head) * head_dim;
      Rotate(cta, args, token, q, args.q_norm, [&](int channel, float x) {
        q[channel] = x;
        if (half != nullptr) half[channel] = FloatToHalf(ClampedToHalfRange(x));
      });
      return;
    }
    head -= args.query_heads;
    const bool is_value = head >= args.kv_heads;
    if (is_value) head -= args.kv_heads;
    const HeadPages& pages = args.heads[static_cast<int64_t>(args.step.slice[token]) * args.kv_heads + head];
    const int slot = args.slots[static_cast<int64_t>(head) * args.tokens + token];
    const uint32_t page = pages.entries[slot / kSlotsOfPage].place;
    uint16_t* to = (is_value ? args.memory.Values(page) : args.memory.Keys(page)) + slot % kSlotsOfPage * head_dim;
    uint16_t* fresh = args.fresh + (static_cast<int64_t>(head) * args.tokens + token) * 2 * head_dim;
    const int64_t from = (static_cast<int64_t>(token) * args.kv_heads + head) * head_dim;
    if (is_value) {
      for (int c = lane; c < head_dim; c += 32) {
        const uint16_t x = FloatToHalf(args.v[from + c]);
        to[c] = x;
        fresh[head_dim + c] = x;
      }
      return;
    }
    Rotate(cta, args, token, args.k + from, args.k_norm, [&](int channel, float x) {
      const uint16_t half = FloatToHalf(x);
      to[channel] = half;
      fresh[channel] = half;
    });
  }

 private:
  template <class Cta, class Put>
  TP_KERNEL static void Rotate(Cta& cta, const Args& args, int token, const float* x, const float* norm, Put&& put) {
    const int lane = cta.thread();
    float factor = 1;
    if (norm != nullptr) {
      float squares = 0;
      for (int c = lane; c < args.head_dim; c += 32) squares += x[c] * x[c];
      factor = 1.0f / sqrtf(cta.WarpSum(squares) / static_cast<float>(args.head_dim) + args.epsilon);
    }
    auto load = [&](int c) { return norm != nullptr ? x[c] * factor * norm[c] : x[c]; };
    const float* cosine = args.step.cosine + static_cast<int64_t>(token) * args.pairs;
    const float* sine = args.step.sine + static_cast<int64_t>(token) * args.pairs;
    for (int i = lane; i < args.pairs; i += 32) {
      const int first = args.neox ? i : 2 * i, second = args.neox ? i + args.pairs : 2 * i + 1;
      const float a = load(first), b = load(second);
      put(first, a * cosine[i] - b * sine[i]);
      put(second, a * sine[i] + b * cosine[i]);
    }
    for (int c = 2 * args.pairs + lane; c < args.head_dim; c += 32) put(c, load(c));
  }
};

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_WORKER_KERNELS_CUDA_ROTATE_STORE_BODY_H_
