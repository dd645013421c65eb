// Where a model runs: owns the weights as the device wants them and the memory of the slot pages, runs batch steps over
// ragged resident rows, and gives a policy the few operations it needs on them. One caller thread.
#ifndef TIDEPOOL_WORKER_BACKEND_BACKEND_H_
#define TIDEPOOL_WORKER_BACKEND_BACKEND_H_

#include <climits>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "policies/kv/kv_layout.h"
#include "policies/kv/rope.h"
#include "worker/backend/token_logit.h"
#include "worker/kv/page_pool.h"
#include "worker/kv/resident_rows.h"

namespace tidepool {

class Model;
struct IndexCodes;
struct IndexScan;
struct ModelConfig;

inline constexpr int32_t kMostBest = 64;

// New tokens of one sequence. Before the step the caller has called rows->Extend for them.
struct StepSlice {
  SequenceRows* rows = nullptr;
  absl::Span<const int32_t> tokens;
  int32_t first_position = 0;
  int32_t logits_rows = 0;  // logits are computed for the last so many tokens
  float* logits = nullptr;  // [logits_rows][vocabulary]
  // Not 0, with Backend::finds_best and one row of logits: only so many of the best are wanted, at most kMostBest, in
  // place of `logits`: higher first, of equal ones the lower token; fewer where others are NaN or -inf.
  int32_t best = 0;
  std::vector<TokenLogit>* best_logits = nullptr;
  // Not null, of one token and where Backend::copies_new_rows(): its rows are also written here, as ReadRows has them,
  // [layer][kv_head], copy_stride bytes from one to the next.
  char* row_copies = nullptr;
  size_t copy_stride = 0;
  // A decoding step of one token: what its queries attend to goes where HeadRows::KeepColumnSums and KeepStepSums say.
  bool decodes = false;
};

// Rotated queries of one slice in one layer, on the host: those of its tokens from `first` on.
struct SliceQueries {
  const float* data = nullptr;  // [tokens - first][stride]: heads * head_dim elements each
  int64_t stride = 0;
  int first = 0;
  const float* Head(int token, int head, int head_dim) const {
    return data + (token - first) * stride + int64_t{head} * head_dim;
  }
};

// What happens inside a step, in every layer, between its projections and its attention: the new rows are in their
// pages already. Recall installs rows here, policies remember queries here.
class StepHook {
 public:
  virtual ~StepHook() = default;
  virtual void BeforeAttention(int layer, absl::Span<const SliceQueries> queries) = 0;
  // Then once for each slice and kv head, before that head attends. Calls for different ones may run at once, and
  // beside the attention of others: no page is taken or given back, and only this head's rows change.
  virtual void BeforeHead(int layer, int slice, int kv_head) {}
  // BeforeHead may have much to do for it: such heads go first, so that threads end together. A backend that
  // waits_for_hooks need not call it for others.
  virtual bool Busy(int slice, int kv_head) const { return false; }
  virtual void AfterAttention(int layer) {}
  // Of a slice of one token, before it attends with a kv head: a row whose key is to be compared with the others' while
  // attention reads these. Null: none.
  struct Comparison {
    int32_t slot = -1;
    int32_t nearest = -1;  // slot of what is most like it, as Backend::MostLike has it, before AfterHead; -1: nobody
                           // has looked
    float cosine = 0;
  };
  virtual Comparison* Compares(int layer, int slice, int kv_head) { return nullptr; }
  // A slice of one token has attended with a kv head, whose rows may still be near: on whichever thread that was, for
  // different heads at once, before AfterAttention. Not every backend calls it.
  virtual void AfterHead(int layer, int slice, int kv_head) {}
  // AfterHead of that slice may come later, beside the layers to come, before the step is over.
  virtual bool AfterHeadMayBeLate(int slice) const { return false; }
  // The slice's answer depends on when rows come, so attention of its only token may add them up as they lie.
  virtual bool MayAttendBySlot(int slice) const { return false; }

  // It is called in its place: this step's attention shall see what it does. Else a backend may call BeforeAttention,
  // BeforeHead of the busy heads and AfterAttention of all layers, in their order, after the step.
  virtual bool ActsInStep() const { return true; }
  // BeforeAttention reads no queries of a slice but those of its last so many tokens.
  virtual int QueriesRead(int slice) const { return INT_MAX; }
};

struct BackendOptions {
  int threads = 2;
  size_t kv_bytes = size_t{1} << 30;  // all slot pages
  // Not 0: in place of kv_bytes this share of what is free on the GPU when the weights are there, 0.1 to 0.95. Steps
  // need the rest.
  double device_memory = 0;
  KvType kv_type = KvType::kF16;
  bool f32_weights = false;  // dequantise everything to float32: debugging and reference tests
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual const KvLayout& layout() const = 0;
  virtual PagePool& pool() = 0;
  virtual const Rope& rope() const = 0;

  // Slices can ask for the best logits alone.
  virtual bool finds_best() const { return false; }
  // A hook that acts in the step makes the device wait in every layer: what can be done after it should be.
  virtual bool waits_for_hooks() const { return false; }
  // What a step's queries attend to is summed up at little cost (HeadRows::KeepStepSums).
  virtual bool sums_steps() const { return false; }

  // StepSlice::row_copies is minded.
  virtual bool copies_new_rows() const { return false; }

  // Runs all slices in one batch. A slice's results do not depend on the others. `hook` may be null.
  virtual void Step(absl::Span<const StepSlice> slices, StepHook* hook) = 0;

  // Copies rows, layout().row_bytes() each: the K row then the V row in the layout's element type. Packed rows are
  // expanded and rounded to it.
  virtual void ReadRows(const SequenceRows& rows, int layer, int kv_head, absl::Span<const int32_t> slots,
                        char* out) = 0;
  // Cosines of a vector [head_dim] with the keys of some slots: out[i] of slots[i]. False: not without reading
  // them.
  virtual bool KeyCosines(const SequenceRows& rows, int layer, int kv_head, const float* vector,
                          absl::Span<const int32_t> slots, float* out) {
    return false;
  }
  // q.k of queries, each [head_dim], with the keys of some plain slots: out[query][slots]. May be asked for different
  // heads at once. False: not without reading them.
  virtual bool KeyScores(const SequenceRows& rows, int layer, int kv_head, absl::Span<const float* const> queries,
                         absl::Span<const int32_t> slots, float* out) {
    return false;
  }
  // Of a head's rows but those in `going`, the one that is most like the one in `slot`, by the cosine of their keys; of
  // several the first by position. nullopt: there is none, or not without reading them. May be asked for different
  // heads at once.
  struct Alike {
    int32_t slot = 0;
    float cosine = 0;
  };
  virtual std::optional<Alike> MostLike(const SequenceRows& rows, int layer, int kv_head, int32_t slot,
                                        absl::Span<const int32_t> going) {
    return std::nullopt;
  }
  // Of one head's rows that are to go, the kept row each is most like, by the cosine of their keys; of several the
  // first.
  struct AlikeTask {
    int kv_head = 0;
    absl::Span<const int32_t> going, kept;  // slots; not empty
    std::vector<int32_t> target;            // [going] index into kept
    std::vector<float> similarity;          // [going] the cosine
  };
  // False: not without reading them.
  virtual bool MostAlike(const SequenceRows& rows, int layer, absl::Span<AlikeTask> tasks) { return false; }
  // A mixture of rows (policies/retain/merge.h). Only where MostLike or MostAlike finds what is mixed.
  struct MixTask {
    int kv_head = 0;
    int32_t from = 0, to = 0;  // slots: of the row itself, and of the mixture, a plain one
    double own = 0, divisor = 0;
    absl::InlinedVector<std::pair<int32_t, double>, 1> sources;  // slots and weights
  };
  virtual void MixRows(SequenceRows& rows, int layer, absl::Span<const MixTask> tasks) {}
  // Recall indexes can be kept on the device and scanned there.
  virtual bool scans_indexes() const { return false; }
  // All at once: the device is waited for.
  virtual void ScanIndexes(absl::Span<IndexScan* const> scans) {}
  // Rows and probabilities of different heads may be read, and rows written, at once.
  virtual bool heads_at_once() const { return false; }
  // Into a plain slot.
  virtual void WriteRow(SequenceRows& rows, int layer, int kv_head, int32_t slot, const char* row) = 0;
  // Moves the plain rows of a head to the slots 0, 1, ... by ascending position and frees the pages that this empties.
  virtual void Repack(SequenceRows& rows, int layer, int kv_head) = 0;
  // The same of several heads.
  struct HeadAt {
    int layer = 0, kv_head = 0;
  };
  virtual void RepackAll(SequenceRows& rows, absl::Span<const HeadAt> heads) {
    for (const HeadAt& head : heads) Repack(rows, head.layer, head.kv_head);
  }
  // Puts kept plain rows into packed pages, kGroupTokens to each: slots by ascending position. Repacks their heads.
  struct PackTask {
    int layer = 0, kv_head = 0;
    std::vector<int32_t> slots;
  };
  virtual void Pack(SequenceRows& rows, KvPrecision precision, absl::Span<const PackTask> tasks) = 0;
  // int8: moves a packed row, bit for bit, to a hole in another group.
  virtual void MovePackedRow(SequenceRows& rows, int layer, int kv_head, int32_t from, int32_t to) = 0;
  // Fills the packed page of a restored group from the rows [kGroupTokens][row_bytes] of its founders. Calls for
  // different groups may run at once.
  virtual void FillGroup(const RowGroup& group, const char* rows) = 0;
  // Attention probabilities of given queries (heads of this kv head's group) over its resident rows by ascending
  // position: out[query][rows]. visible[i]: how many leading rows query i sees.
  virtual void Probabilities(const SequenceRows& rows, int layer, int kv_head, absl::Span<const float* const> queries,
                             absl::Span<const int32_t> visible, float* out) = 0;
  // Runs body(0 .. count-1) over the backend's host threads, in any order.
  virtual void ParallelFor(int64_t count, absl::FunctionRef<void(int64_t)> body) = 0;
};

// Shape of a model's keys and values.
KvLayout LayoutOf(const Model& model, KvType type);

// The model's shape is one that the backends compute: InvalidArgument naming the field.
absl::Status CheckShape(const ModelConfig& config);
// Slot pages of `page_bytes` that options.kv_bytes make: InvalidArgument when they are fewer than one for each layer
// and kv head.
absl::StatusOr<int32_t> PagesOf(const BackendOptions& options, const KvLayout& layout, size_t page_bytes);

// The `cpu` backend. InvalidArgument naming the option.
absl::StatusOr<std::unique_ptr<Backend>> CreateCpuBackend(std::shared_ptr<const Model> model,
                                                          const BackendOptions& options);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_BACKEND_BACKEND_H_
