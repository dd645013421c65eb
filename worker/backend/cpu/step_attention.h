// Attention of one layer in a step of the `cpu` backend, over a team of threads.
//
// A prompt's kv head is split by tiles of its tokens. One of a decoding sequence, or of a prompt's small piece, is one
// thread's, whose cache then has its scores and the values behind its keys; but the last ones are split by their rows,
// so that threads end together however few heads there are. Whole heads fall to threads in advance, so that each can
// ask for the memory of its next one; who is done takes what others have left. Nobody waits but for what others already
// work on.
#ifndef TIDEPOOL_WORKER_BACKEND_CPU_STEP_ATTENTION_H_
#define TIDEPOOL_WORKER_BACKEND_CPU_STEP_ATTENTION_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "worker/backend/backend.h"
#include "worker/backend/cpu/float_buffer.h"
#include "worker/backend/cpu/head_pages.h"
#include "worker/backend/cpu/head_reader.h"
#include "worker/kernels/cpu/attention.h"
#include "worker/kernels/cpu/thread_team.h"

namespace tidepool {

class StepAttention {
 public:
  // heads: query heads. What is given by reference must outlive this.
  StepAttention(const KvLayout& layout, int heads, const PageMemory& memory, const std::vector<PackedPage>& layouts,
                ThreadTeam& team);

  // Before a step's first layer. What is given must outlive the step; hook: may be null.
  void Begin(absl::Span<const StepSlice> slices, StepHook* hook);
  // q, out: [tokens of all slices][heads][head_dim].
  void Run(int layer, const float* q, float* out);
  // After a step's last layer: what the hook had to do after layers' last heads, and was left to threads that wait.
  void Finish() { team_.FinishLeft(); }

 private:
  // Queries that go through rows together: of a head that is split by its rows, of a prompt's tile.
  static constexpr int kMostQueries = 64, kTileQueries = 96;

  // A (slice, kv head): its work, and how far it has come.
  struct Head {
    const StepSlice* slice = nullptr;
    HeadRows* rows = nullptr;
    int slice_index = 0, kv_head = 0;
    // Probabilities are added to the sums of each query head, and to those of all of them.
    bool sums_columns = false, sums_steps = false;
    int64_t first_row = 0;  // of the slice in q
    bool busy = false;      // its hook has work
    bool by_slot = false;   // StepHook::MayAttendBySlot
    bool split = false;
    bool whole = false;  // split, but there are so many that one thread takes all of it

    std::atomic<bool> prepared{false};
    // Valid once prepared.
    HeadPages pages;
    AttentionTask task;  // split
    const float* query[kMostQueries];
    float* out[kMostQueries];
    float* column_sums[kMostQueries];
    int32_t visible[kMostQueries];
    // StepHook::Compares, and what attention is told of it.
    StepHook::Comparison* compared = nullptr;
    KeyComparison comparison;
    float row[2 * kMaxHeadDim];  // compared
    bool local = false;          // all parts score their own pages; else those of an out-of-order head are scored first
    int32_t score_units = 0, units = 0;
    int64_t scratch = 0;                          // of scratch_: scores, cosines, partials, sums
    std::atomic<bool> taken{false};               // whole
    std::unique_ptr<std::atomic<bool>[]> scored;  // by score unit
    int32_t scored_size = 0;
    std::atomic<int32_t> next_score{0}, next_unit{0}, done{0};
    // Where weights are kept: what policies want of them is given by who computed a part, from its own cache.
    std::atomic<bool> merged{false};
    std::atomic<int32_t> given{0};
  };
  // What a thread works in, and the parts of this layer whose weights it keeps: [queries][kPartRows] each.
  struct Kept {
    Head* head;
    int32_t unit;
    const float* weights;
  };
  struct Thread {
    explicit Thread(const PageMemory& memory) : reader(memory) {}
    FloatBuffer scratch, weights;
    HeadReader reader;
    int64_t used = 0;  // of weights
    std::vector<Kept> kept;
    size_t given = 0;  // of those
  };

  void FindHeads(int layer);
  void Work(int layer, int thread, const float* q, float* out);
  void Prepare(Head& head, int layer, const float* q, float* out);
  // Has attention compare a row's key, if the hook wants that.
  void PrepareComparison(Head& head, int layer);
  void Score(Head& head, int32_t unit, int thread);
  // What a part of an out-of-order head needs; waits for what others score.
  void ScoreFor(Head& head, int32_t part, int thread);
  void Part(Head& head, int layer, int32_t unit, int thread);
  // Of the parts that the thread has kept, those whose heads are merged; wait: all.
  void GiveParts(int layer, int thread, bool wait);
  // The whole heads that fall to this thread, then what others have left of theirs.
  void WholeHeads(int layer, int thread, const float* q, float* out);
  // Unless another thread has taken it. index: of those that the thread's reader knows.
  void AttendWhole(Head& head, int layer, int thread, size_t index, const float* q, float* out);
  void PrepareWithHook(Head& head, int layer, const float* q, float* out);
  void Attended(const Head& head, int layer);
  void Tile(Head& head, int32_t unit, int thread, const float* q, float* out);
  // Of a prompt's `count` tokens.
  int TileTokens(int count) const;

  int64_t PartialsAt(const Head& head) const {
    return head.scratch + ScoreRows(head.task) * SlotFloats(head.task.slots);
  }
  int64_t PartFloats(const Head& head) const { return head.task.queries * PartialFloats(layout_.head_dim); }

  const KvLayout& layout_;
  const int heads_, group_;
  const float scale_;
  const PageMemory& memory_;
  const std::vector<PackedPage>& layouts_;
  ThreadTeam& team_;

  absl::Span<const StepSlice> slices_;
  StepHook* hook_ = nullptr;
  std::vector<std::unique_ptr<Head>> all_;  // kept from layer to layer for their memory
  // This layer's. prepare_: those that are prepared before any is attended to; whole_: in the order of their work.
  std::vector<Head*> now_, prepare_, whole_;
  bool attends_at_once_ = false;  // whole heads, as soon as they are prepared: there are no prompts beside them
  std::atomic<size_t> next_prepare_{0};
  std::atomic<int> to_attend_{0};  // heads of one token
  // What is left to the team: the hook's AfterHead, of a head by its number among those of all layers and slices.
  const std::function<void(int64_t)> after_head_;
  FloatBuffer scratch_;
  int64_t kept_floats_ = 0;  // of all weights that this layer's heads may keep
  std::vector<std::unique_ptr<Thread>> threads_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_BACKEND_CPU_STEP_ATTENTION_H_
