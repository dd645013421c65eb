// Attention of a few queries over the resident rows of one (sequence, layer, kv head), and the scan of a 4-bit key
// index.
//
// Slot page (kPageSlots slots): K as [head_dim][kPageSlots], so that the scores of a page need no horizontal sum, then
// V as [kPageSlots][head_dim]; elements float16 or float32. Packed pages (policies/kv/packed_page.h) hold two times as
// many slots in fewer bits and are expanded into registers.
//
// The result for a query depends only on the query and on the rows it sees, in ascending position: never on the slots
// that hold them, on the other queries of a call or on the number of threads. So a recalled row gives the bits that the
// evicted one gave, and chunked prefill, batched decode and their mixtures agree bit for bit (promise P2).
#ifndef TIDEPOOL_WORKER_KERNELS_CPU_ATTENTION_H_
#define TIDEPOOL_WORKER_KERNELS_CPU_ATTENTION_H_

#include <cstddef>
#include <cstdint>

#include "policies/kv/packed_page.h"

namespace tidepool {

struct AttentionTask {
  const void* const* pages = nullptr;  // [ceil(slots / kPageSlots)] page addresses; null: no row lies there
  // [pages] 0: a slot page; 1, 2: first and second half of a packed page. Null: all are slot pages.
  const uint8_t* halves = nullptr;
  KvPrecision packed = KvPrecision::kF16;     // of all packed pages
  const PackedPage* packed_layout = nullptr;  // theirs
  int32_t slots = 0;                          // slots in use or free below the end: the pages cover them
  const int32_t* order = nullptr;             // [rows] slots by ascending position; null: slot i is the i-th
  int32_t rows = 0;
  int32_t head_dim = 0;  // a multiple of 16, at most kMaxHeadDim
  float scale = 0;       // 1 / sqrt(head_dim)
  int32_t queries = 0;
  const float* const* q = nullptr;   // [queries] of [head_dim]
  const int32_t* visible = nullptr;  // [queries] how many leading entries of `order` each sees, 1 .. rows
  float* const* out = nullptr;       // [queries] of [head_dim]; null: probabilities only
  // The probabilities of query i are added to column_sums[i][slot], query after query.
  float* const* column_sums = nullptr;  // [queries] arrays indexed by slot, may repeat; null: none
  // [queries][probability_stride] in ascending position, entries past `visible` are 0; null: none.
  float* probabilities = nullptr;
  int64_t probability_stride = 0;
};

inline constexpr int kMaxHeadDim = 256;

// Bytes of scratch memory (64-byte aligned) that a task needs.
size_t AttentionScratchBytes(int queries, int slots);
void AttendF16(const AttentionTask& task, void* scratch);
void AttendF32(const AttentionTask& task, void* scratch);

// One segment of a 4-bit key index: `tiles` tiles of 16 tokens, each [head_dim][8] bytes: token t of a tile is the low
// nibble of byte t for t < 8, the high nibble of byte t - 8 else (policies/recall/k4_code.h). scores[query][token] =
// bias[query] + sum_c scaled_query[query][c] * code[c][token].
struct K4Task {
  const uint8_t* codes = nullptr;
  int32_t tiles = 0;
  int32_t head_dim = 0;
  int32_t queries = 0;                         // at most kMaxK4Queries
  const float* const* scaled_query = nullptr;  // [queries] of [head_dim]: query * scale of the channel
  const float* bias = nullptr;                 // [queries]: sum of query * minimum of the channel
  float* const* scores = nullptr;              // [queries] of [tiles * 16]
};

inline constexpr int kMaxK4Queries = 16;

void ScoreK4Tiles(const K4Task& task);

// x[i] = exp(x[i] - maximum) for i < count with the maximum taken first; returns the sum, taken in 16 lanes by index.
float ExpAndSum(float* x, int32_t count);

// Shares of an attention restricted to some rows: shares[i] = exp(scale * x[i] - maximum) where which[i] is 1, and 0
// where it is 0; the maximum is that of scale * x[i] where which[i] is 1. sums[0]: of the shares; sums[1]: of all rows'
// terms, none taken above e^60. Both in 16 lanes by index. which: 0 or 1, at least one 1.
void SharesOf(const float* x, const float* which, int32_t count, float scale, float* shares, float sums[2]);

// weight[i] = sum over j of factor[j] * shares[j][i], j ascending. above: gets the i with a weight above `least`, in
// ascending order; room for count + 16. Returns how many.
int32_t WeighShares(const float* const* shares, const float* factor, int32_t queries, int32_t count, float least,
                    float* weight, int32_t* above);

// IEEE half precision, round to nearest even.
void FloatToHalf(const float* in, int64_t count, uint16_t* out);
void HalfToFloat(const uint16_t* in, int64_t count, float* out);

struct AttentionKernels {
  void (*attend_f16)(const AttentionTask&, void*);
  void (*attend_f32)(const AttentionTask&, void*);
  void (*score_k4)(const K4Task&);
  float (*exp_and_sum)(float*, int32_t);
  void (*shares_of)(const float*, const float*, int32_t, float, float*, float*);
  int32_t (*weigh_shares)(const float* const*, const float*, int32_t, int32_t, float, float*, int32_t*);
  void (*float_to_half)(const float*, int64_t, uint16_t*);
  void (*half_to_float)(const uint16_t*, int64_t, float*);
};

namespace cpu_baseline {
extern const AttentionKernels kAttentionKernels;
}
namespace cpu_avx2 {
extern const AttentionKernels kAttentionKernels;
}
namespace cpu_avx512 {
extern const AttentionKernels kAttentionKernels;
}

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KERNELS_CPU_ATTENTION_H_
