// Scans over all that one (layer, kv head) could recall: of a 4-bit key index, and from scores to the rows that weigh.
#ifndef TIDEPOOL_WORKER_KERNELS_CPU_RECALL_SCAN_H_
#define TIDEPOOL_WORKER_KERNELS_CPU_RECALL_SCAN_H_

#include <cstdint>

namespace tidepool {

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

// Shares of an attention restricted to some rows: shares[i] = exp(scale * x[i] - maximum), to 1e-5 of it, where
// which[i] is not 0, else 0; the maximum is that of scale * x[i] where which[i] is not 0, of which there is one at
// least. shares: may be x. Sums are taken in 16 lanes by index.
struct ShareSums {
  float chosen = 0;  // of the shares
  float all = 0;     // of all rows' terms, none taken above e^60
};
void SharesOf(const float* x, const uint8_t* which, int32_t count, float scale, float* shares, ShareSums* sums);

// What SharesOf has given, weighed: weight = sum over j of factor[j] * shares[j], j ascending.
struct WeighRowsTask {
  const float* const* shares = nullptr;  // [queries] of [count]
  const float* const* x = nullptr;       // the same, for ListRows: what they are of
  const uint8_t* which = nullptr;        // [count]
  int32_t queries = 0, count = 0;        // queries: at most kMaxWeighQueries
  const float* factor = nullptr;         // [queries]
  float least = 0;                       // >= 0
  uint8_t mark = 0;                      // in `which`
};
inline constexpr int kMaxWeighQueries = 64;

// The sums of the weights of marked rows, and of those above `least` that have no mark. In lanes by index.
struct WeightSums {
  float marked = 0, above = 0;
};
WeightSums SumWeights(const WeighRowsTask& task);

// Where the rows with a weight above `least`, or with the mark, are listed, ascending. Each with room for the task's
// count, rounded up to a multiple of 16.
struct ListedRows {
  int32_t* rows = nullptr;
  float* weight = nullptr;
  float* const* x = nullptr;       // [queries]; may be the task's
  float* const* shares = nullptr;  // the same
};
// Returns how many.
int32_t ListRows(const WeighRowsTask& task, const ListedRows& listed);

// weight[i] = sum over j of factor[j] * shares[j][i], j ascending. above, above_weight: get the i with a weight above
// `least`, in ascending order, and their weights; room for count + kWeighSharesRoom.
struct WeighSharesTask {
  const float* const* shares = nullptr;  // [queries] of [count]
  const float* factor = nullptr;         // [queries]
  int32_t queries = 0, count = 0;
  float least = 0;
  float* weight = nullptr;  // [count]
  int32_t* above = nullptr;
  float* above_weight = nullptr;
};
inline constexpr int kWeighSharesRoom = 16;

// Returns how many are above.
int32_t WeighShares(const WeighSharesTask& task);

// Of what SharesOf gave for `estimate`, what it gives for `exact`, relative to the same maximum: shares[i] *= exp(scale
// * (exact[i] - estimate[i])), to 1e-5 of it and no factor above e^60. Returns the sum, in 16 lanes by index.
float CorrectShares(const float* estimate, const float* exact, int32_t count, float scale, float* shares);

// Keys in half precision, `stride` elements from one to the next.
struct HalfRows {
  const uint16_t* first = nullptr;
  int64_t stride = 0;
  int32_t count = 0;
  int32_t head_dim = 0;  // a multiple of 16
};

// scores[j][i] = q[j] . key i.
void DotHalves(const HalfRows& rows, int32_t queries, const float* const* q, float* const* scores);
// Of keys anywhere, `count` of them; they are fetched ahead.
void DotHalvesAt(const uint16_t* const* keys, int32_t count, int32_t head_dim, int32_t queries, const float* const* q,
                 float* const* scores);

struct RecallScanKernels {
  void (*score_k4)(const K4Task&);
  void (*shares_of)(const float*, const uint8_t*, int32_t, float, float*, ShareSums*);
  void (*sum_weights)(const WeighRowsTask&, WeightSums*);
  int32_t (*list_rows)(const WeighRowsTask&, const ListedRows&);
  int32_t (*weigh_shares)(const WeighSharesTask&);
  float (*correct_shares)(const float*, const float*, int32_t, float, float*);
  void (*dot_halves)(const HalfRows&, int32_t, const float* const*, float* const*);
  void (*dot_halves_at)(const uint16_t* const*, int32_t, int32_t, int32_t, const float* const*, float* const*);
};

namespace cpu_baseline {
extern const RecallScanKernels kRecallScanKernels;
}
namespace cpu_avx2 {
extern const RecallScanKernels kRecallScanKernels;
}
namespace cpu_avx512 {
extern const RecallScanKernels kRecallScanKernels;
}

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KERNELS_CPU_RECALL_SCAN_H_
