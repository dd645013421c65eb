// Attention of a few queries over the resident rows of one (sequence, layer, kv head).
//
// Slot page (kPageSlots slots): K as [head_dim][kPageSlots], so that the scores of a page need no horizontal sum, then
// V as [kPageSlots][head_dim]; elements float16 or float32. Packed pages (policies/kv/packed_page.h) hold two times as
// many slots in fewer bits and are expanded into registers.
//
// Rows are taken in parts of kPartRows by ascending position. Each part gives a softmax of its own and its weighted
// values; parts are merged from the first to the last (online softmax, arXiv 1805.02867). Whoever computes them:
// AttendPart may run for different parts at once.
//
// The result for a query depends only on the query and on the rows it sees, in ascending position: never on the slots
// that hold them, on the other queries of a call or on the number of threads. So a recalled row gives the bits that the
// evicted one gave, and chunked prefill, batched decode and their mixtures agree bit for bit (promise P2). Where that
// is not asked for the order may be another: StepHook::MayAttendBySlot.
#ifndef TIDEPOOL_WORKER_KERNELS_CPU_ATTENTION_H_
#define TIDEPOOL_WORKER_KERNELS_CPU_ATTENTION_H_

#include <cstddef>
#include <cstdint>

#include "base/limits.h"
#include "policies/kv/packed_page.h"
#include "worker/kernels/cpu/read_ahead.h"

namespace tidepool {

enum class KvType : uint8_t;  // policies/kv/kv_layout.h, which is no light header

// A row whose key is compared with those of all others while attention has them at hand, and what is found.
struct KeyComparison {
  const float* key = nullptr;  // [head_dim]
  float length = 0;            // the key's
  int32_t row = 0;             // by ascending position
  // Where the task has an order: [slots] positions of the rows there, [free_slots] slots without one.
  const int32_t* positions = nullptr;
  const int32_t* free = nullptr;
  int32_t free_slots = 0;
  // The slot with the largest cosine key . other / (length * |other|), of equal ones that with the lowest position; -1:
  // none is a number above -infinity. The same bits as by CosinesWithKeys (leaving_row.h).
  int32_t nearest = -1;
  float cosine = 0;
};

struct AttentionTask {
  const void* const* pages = nullptr;  // [ceil(slots / kPageSlots)] page addresses; null: no row lies there
  // [pages] 0: a slot page; 1, 2: first and second half of a packed page. Null: all are slot pages.
  const uint8_t* halves = nullptr;
  KvPrecision packed = KvPrecision::kF16;     // of all packed pages
  const PackedPage* packed_layout = nullptr;  // theirs
  int32_t slots = 0;                          // slots in use or free below the end: the pages cover them
  const int32_t* order = nullptr;             // [rows] slots by ascending position; null: slot i is the i-th
  int32_t rows = 0;
  // Without an order, and only in slot pages: slots below `rows` that hold no row, descending.
  const int32_t* holes = nullptr;
  int32_t hole_count = 0;
  int32_t head_dim = 0;  // a multiple of 16, at most kMaxHeadDim
  float scale = 0;       // 1 / sqrt(head_dim)
  int32_t queries = 0;
  const float* const* q = nullptr;   // [queries] of [head_dim]
  const int32_t* visible = nullptr;  // [queries] how many leading entries of `order` each sees, 1 .. rows
  float* const* out = nullptr;       // [queries] of [head_dim]; null: probabilities only
  // The probabilities of query i are added to column_sums[i][slot], query after query.
  float* const* column_sums = nullptr;  // [queries] arrays indexed by slot, may repeat; null: none
  float* sums = nullptr;                // those of all queries to one array, likewise; null: none
  // [queries][probability_stride] in ascending position, entries past `visible` are 0; null: none.
  float* probabilities = nullptr;
  int64_t probability_stride = 0;
  KeyComparison* comparison = nullptr;  // null: none. Only of slot pages
  // Told of what few queries read, and tells what to ask for meanwhile; null: the task's own rows, some pages later.
  ReadAhead* ahead = nullptr;
  // Weights of all parts are wanted.
  bool keeps_weights() const { return column_sums != nullptr || sums != nullptr || probabilities != nullptr; }
};

inline constexpr int kMaxHeadDim = 256;

inline constexpr int32_t kPartRows = 256;

// Internal linkage, like all that several instruction sets include.
static constexpr int32_t PartsOf(int32_t rows) { return (rows + kPartRows - 1) / kPartRows; }
static constexpr int64_t SlotFloats(int32_t slots) {
  return (int64_t{slots} + kPageSlots - 1) / kPageSlots * kPageSlots;
}
// With an order: how many leading pages hold all of a part's rows.
static inline int32_t PagesNeeded(const AttentionTask& task, int32_t part) {
  const int32_t first = part * kPartRows, end = first + kPartRows < task.rows ? first + kPartRows : task.rows;
  int32_t last = 0;
  for (int32_t i = first; i < end; ++i) last = last > task.order[i] ? last : task.order[i];
  return last / kPageSlots + 1;
}
// With an order: a part of few queries whose rows lie on few pages scores these itself, so that no thread waits for
// another. A page on which rows of two parts lie is scored twice.
inline constexpr int kLocalQueries = 7;
inline constexpr int32_t kLocalPages = kPartRows / kPageSlots * 3 / 2;
static inline bool IsLocal(const AttentionTask& task, int32_t part) {
  const int32_t first = part * kPartRows, end = first + kPartRows < task.rows ? first + kPartRows : task.rows;
  auto page = [&](int32_t i) { return static_cast<uint32_t>(task.order[i]) / kPageSlots; };
  int32_t pages = 1;
  for (int32_t i = first + 1; i < end; ++i) pages += page(i) != page(i - 1) ? 1 : 0;
  return task.queries <= kLocalQueries && pages <= kLocalPages;
}

// Of one query in a part: [head_dim] sums of weight * value, the maximum that the weights are relative to, and their
// sum. Of the first one then the largest cosine of a comparison, and its row, unless the part was given scores.
static constexpr int64_t PartialFloats(int head_dim) { return head_dim + 16; }

// Of each page: the scores of the queries, and the cosines of a comparison.
static inline int64_t ScoreRows(const AttentionTask& task) {
  return int64_t{task.queries} + (task.comparison != nullptr ? 1 : 0);
}

// Where Attend keeps what, in floats.
struct AttentionScratch {
  int64_t scores;    // [ScoreRows][SlotFloats], with an order
  int64_t weights;   // [parts][queries][kPartRows]; of one part where nobody wants them
  int64_t partials;  // [parts][queries][PartialFloats]; likewise
  int64_t sums;      // [queries][PartialFloats]
  int64_t rows;      // [kPartRows][head_dim]
  int64_t end;
};

// What is as large for any number of rows comes first: memory that a short context has used serves a long one.
static inline AttentionScratch ScratchOf(const AttentionTask& task) {
  const int64_t queries = task.queries, parts = task.keeps_weights() ? PartsOf(task.rows) : 1;
  AttentionScratch at{};
  at.sums = at.rows + int64_t{kPartRows} * task.head_dim;
  at.weights = at.sums + queries * PartialFloats(task.head_dim);
  at.partials = at.weights + queries * parts * kPartRows;
  at.scores = at.partials + queries * parts * PartialFloats(task.head_dim);
  at.end = at.scores + (task.order != nullptr ? ScoreRows(task) * SlotFloats(task.slots) : 0);
  return at;
}

// scratch: ScratchOf(task).end floats, 64-byte aligned.
void Attend(KvType type, const AttentionTask& task, float* scratch);

// The same in steps. scratch: PartScratchFloats.
static constexpr int64_t PartScratchFloats(int queries, int head_dim) {
  return int64_t{kPartRows} * (int64_t{queries} + head_dim);
}
// With an order, first: scores[ScoreRows][SlotFloats] of pages [first, end), of all that PagesNeeded says before a
// part.
void ScorePages(KvType type, const AttentionTask& task, int32_t first, int32_t end, float* scores, float* scratch);
// A part's sums, to partial[queries][PartialFloats]. scores: null without an order, and for a part that IsLocal.
// weights: [queries][kPartRows] to fill where the task keeps_weights; else null. next: the page whose keys this thread
// will probably read then, and those behind it; they are asked for meanwhile.
void AttendPart(KvType type, const AttentionTask& task, int32_t part, int32_t next, const float* scores, float* weights,
                float* partial, float* scratch);
// Of all parts [parts][queries][PartialFloats] the task's results, but for what it wants of weights. scores: as the
// parts had them, no longer needed. sums: [queries][PartialFloats] of all parts, to be filled.
void MergeParts(const AttentionTask& task, const float* partials, float* scores, float* sums);
// Then, where the task keeps_weights, for each part: what it wants of these. May run for different parts at once.
void GivePart(const AttentionTask& task, int32_t part, const float* weights, const float* partial, const float* sums);

// x[i] = exp(x[i] - maximum) for i < count with the maximum taken first; returns the sum, taken in 16 lanes by index.
float ExpAndSum(float* x, int32_t count);

// IEEE half precision, round to nearest even.
void FloatToHalf(const float* in, int64_t count, uint16_t* out);
void HalfToFloat(const uint16_t* in, int64_t count, float* out);

struct AttentionKernels {
  struct OfType {
    void (*attend)(const AttentionTask&, float*);
    void (*score_pages)(const AttentionTask&, int32_t, int32_t, float*, float*);
    void (*attend_part)(const AttentionTask&, int32_t, int32_t, const float*, float*, float*, float*);
  };
  OfType f16, f32;
  void (*merge_parts)(const AttentionTask&, const float*, float*, float*);
  void (*give_part)(const AttentionTask&, int32_t, const float*, const float*, const float*);
  float (*exp_and_sum)(float*, int32_t);
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
