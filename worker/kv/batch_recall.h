// Recall inside the steps of a batch: the hook between a layer's projections and its attention.
//
// sync: every layer of every token chooses by its own queries, fetches what is missing in one request for the whole
// batch and installs it before the layer attends. Deterministic: what is attended to is the best rows by index.
//
// async: nothing is waited for. Heads whose queries have turned, or that have not chosen for some steps, choose
// anew, if the index says that it could bring something to speak of; when an answer begins all do. A layer installs
// those of the rows it wants that are ready in host memory (RowStaging); the others, and what the next token may
// want, are asked for together, every few steps or at once where a step misses much without them; each head stages
// what has come for it when its layer comes. What takes longer than budget_ms is late. What a head can do by itself
// it does on the thread that then attends to it, beside the attention of others (BeforeHead): there nobody waits for
// the engine's thread. Where a hook makes the device wait, heads choose after the step, and the next step sees the
// rows: one token later. In a step heads that miss much choose, and some others, the rest in the next one; in a step
// that is long because the policy selects only those that miss much. The tokens of a later turn's prompt are
// recalled synchronously, so that the first token of the answer sees what the question asks for.
//
// While requests go unanswered neither asks: a dead or slow service is left alone for a while, and then tried with one.
// Asynchronous heads do not choose meanwhile, so decoding has the pace that it has without recall.
#ifndef TIDEPOOL_WORKER_KV_BATCH_RECALL_H_
#define TIDEPOOL_WORKER_KV_BATCH_RECALL_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "cacheservice/api/block_cache.h"
#include "worker/backend/backend.h"
#include "worker/kv/arrived_rows.h"
#include "worker/kv/block_log.h"
#include "worker/kv/joint_choice.h"
#include "worker/kv/local_rows.h"
#include "worker/kv/missing_rows.h"
#include "worker/kv/query_ring.h"
#include "worker/kv/recall_meter.h"
#include "worker/kv/resident_rows.h"
#include "worker/kv/row_recall.h"

namespace tidepool {

class Compressor;

// One slice of a step, as recall sees it.
struct RecallSlice {
  SequenceRows* rows = nullptr;
  BlockLog* log = nullptr;
  RowRecall* recall = nullptr;  // null: no recall
  QueryRing* ring = nullptr;    // null: queries need not be remembered
  int32_t first_position = 0;
  int32_t tokens = 0;
  bool prompt = false;               // tokens of a prompt
  RecallMeter* meter = nullptr;      // counts for the sequence's policy; null: nobody counts
  Compressor* compressor = nullptr;  // acts on heads that have attended; null: not in this step
  bool selects = false;              // the policy selects among all rows after this step, which takes long
};

class BatchRecall : public StepHook {
 public:
  // `cache` may be null when no slice recalls. sync_deadline: for all that one step waits for.
  BatchRecall(Backend* backend, BlockCache* cache, int query_heads, absl::Duration sync_deadline);

  // Before Backend::Step, with slices in its order.
  void Begin(std::vector<RecallSlice> slices);
  void BeforeAttention(int layer, absl::Span<const SliceQueries> queries) override;
  void BeforeHead(int layer, int slice, int kv_head) override;
  bool Busy(int slice, int kv_head) const override { return PassingUnit(slice, kv_head) >= 0; }
  void AfterAttention(int layer) override;
  Comparison* Compares(int layer, int slice, int kv_head) override;
  void AfterHead(int layer, int slice, int kv_head) override;
  // Nobody else changes the rows of a slice without recall.
  bool AfterHeadMayBeLate(int slice) const override { return slices_[slice].recall == nullptr; }
  bool MayAttendBySlot(int slice) const override { return Active(slices_[slice]) && !Synchronous(slices_[slice]); }
  bool ActsInStep() const override;
  int QueriesRead(int slice) const override;
  // After it.
  void End();
  // Since the beginning.
  const RecallRequests& requests() const { return requests_; }

 private:
  // Index into passing_, or -1.
  int32_t PassingUnit(int slice, int kv_head) const {
    return passing_of_[static_cast<size_t>(slice) * backend_->layout().kv_heads + kv_head];
  }
  bool Active(const RecallSlice& slice) const;
  bool Synchronous(const RecallSlice& slice) const;
  int HeadIndex(int layer, int kv_head) const { return layer * backend_->layout().kv_heads + kv_head; }
  // What a head has staged, and what did not come.
  struct Staged {
    struct Missed {
      MissingRows of;
      int32_t position;
      absl::Status why;
    };
    int64_t rows = 0;
    std::vector<Missed> missed;
  };
  // A (slice, kv head) of the layer being recalled that chooses in this step. Kept from layer to layer for its memory.
  struct Unit {
    int slice = 0, kv_head = 0;
    bool waits = false;
    bool idle = false;  // it has come to nothing: there is nothing to finish or to count
    Chooser chooser = Chooser::kHead;
    bool undecided = false;  // whether it has turned is found out before its attention
    // Else it has turned too little, or a choice could bring too little: what it chose before may have come.
    bool chooses = true;
    bool owed = false;  // it had no turn in the last step
    bool is_scored = false;
    std::vector<const float*> queries;  // the group's that choose
    bool scanned = false;               // on the device
    IndexScan scan;
    RowScores kept_scores;        // where others look at them
    RowScores* scores = nullptr;  // these, or those of the thread that is in BeforeHead; null: after it
    float mass = 0;               // theirs
    std::vector<int32_t> far;     // of the shortlist, by places: neither local nor in a slot
    // Of a comparison, kept for their memory.
    std::vector<int32_t> near_places;
    std::vector<const char*> near_rows;
    std::vector<float> own_scores;
    LocalRows local;  // until it is finished
    RowChoice choice;
    std::vector<MissingPosition> missing;  // of the wanted: not local
    std::vector<int32_t> new_slot;         // of the wanted: local, for a slot that was never used
    std::vector<MissingPosition> asked;    // what is to come later
    std::vector<MissingRows> groups;       // of them
    int64_t installed = 0;
    Staged staged;
    float covered = 0;  // of the candidates' weights: what recall slots hold
    float missed = 0;   // of the attention: what is on wanted rows that are not local
    float dropped = 0;  // of the attention: what is on evicted rows that are not there as the layer attends
  };
  // The units of this layer, into waiting_ and passing_.
  void FindUnits(int layer, absl::Span<const SliceQueries> queries);
  // Stages what has come for its head, before that chooses or takes what it expects.
  void StageOwn(int layer, Unit& unit) const;
  // Scores what a device can.
  void Scan(int layer, absl::Span<Unit> units);
  // Chooses for the slices that wait.
  void Wait(int layer);
  // Once the units of heads that choose together are scored: by what they choose.
  void WeighTogether(int layer, absl::Span<Unit> units);
  // Fetches and compares what CompareNear left.
  void CompareFar(int layer, absl::Span<Unit> units);
  // The next six may run at once for different units.
  void Score(int layer, Unit& unit);
  // Scored, it is worth choosing: whether it may in this step.
  bool TakeTurn(int layer, const Unit& unit);
  // And compares, for a slice that does not wait.
  void ScorePassing(int layer, Unit& unit);
  // Compares the rows of the shortlist that are local or in slots; the others are left in `far`.
  void CompareNear(int layer, Unit& unit);
  // Chooses, installs what is local, and notes what is to be asked for and not waited for.
  void Choose(int layer, Unit& unit);
  void InstallLocal(int layer, Unit& unit);
  void Ask(int layer, Unit& unit);
  // What recall could not bring for this layer, once its slots are as they will be.
  void MeasureDropped(Unit& unit) const;
  // Counts what a step's units have done; on the engine thread.
  void Count(int layer, Unit& unit);
  RecallMeter::Group* Meter(const RecallSlice& slice, int layer) const {
    return slice.meter == nullptr ? nullptr : &slice.meter->groups[LayerGroupOf(layer, backend_->layout().layers)];
  }
  // After Choose: what it could not do at the side of others. What is missing goes to `missing` or is to be
  // asked for later.
  void Finish(int layer, Unit& unit, std::vector<MissingRows>* missing);
  // Waits for rows and stages them; `take` gets those that came.
  void Fetch(const std::vector<MissingRows>& missing,
             absl::FunctionRef<void(const MissingRows& of, int32_t position, const char* bytes)> take);
  std::vector<RowSelection> SelectionsOf(absl::Span<const MissingRows> groups) const;
  // Puts a row into a recall slot, taking the first victim's when all are in use, or back in place of its mixture.
  void Install(int layer, Unit& unit, int32_t position, const char* row);
  // The row if it need not be fetched: staged, or not acknowledged by the service yet. head: HeadIndex.
  const char* LocalRow(Unit& unit, int head, int32_t position) const;
  // Takes what asynchronous requests have brought by now. Heads stage their rows when their layers come, or all do now.
  void TakeAnswers(RecallSlice& slice);
  // An asynchronous request has ended: whether the service is asked further.
  void NoteAnswer(bool answered);
  // Leaves of `rows` those that nobody has asked for, which from now on are asked for; false: none.
  bool AskFor(RowStaging& staging, MissingRows& rows) const;
  // Makes requests of what slices have collected, those first that have waited longest.
  void FindRequests();
  // Of what slices_[slice] has, unless that can wait for more, or does not fit to what all have under way: how many
  // bytes of rows are under way with it.
  int64_t FindRequest(int slice, int64_t under_way);
  // Sends one of them, if one is left and no other thread is at it: it takes as long as some heads' attention, so a
  // thread does it beside the others.
  void SendOne();
  // The rows of one head, or what came of them. For different heads at once.
  void Stage(RowStaging& staging, ArrivedRows& arrived, ArrivedRows::OfHead& head, Staged& staged) const;
  void CountStaged(RecallSlice& slice, Staged& staged) const;
  // Those of all heads.
  void StageAll(RecallSlice& slice, ArrivedRows& arrived);
  // A row of `of` did not come, for this reason.
  void Miss(RecallSlice& slice, const MissingRows& of, int32_t position, const absl::Status& why, bool waited) const;

  Backend* const backend_;
  BlockCache* const cache_;
  const int query_heads_;
  const absl::Duration sync_deadline_;
  std::vector<RecallSlice> slices_;
  absl::Span<const SliceQueries> queries_;  // of the layer that attends
  std::vector<float*> remembered_;  // [slice]: where its ring takes the queries of its only token; null: nowhere
  struct Units {
    std::vector<Unit> all;
    size_t count = 0;  // of them, in this layer

    Unit& Add() {
      if (count == all.size()) all.emplace_back();
      return all[count++];
    }
    absl::Span<Unit> now() { return absl::MakeSpan(all).subspan(0, count); }
  };
  Units waiting_, passing_;              // of slices that wait for rows, and that do not
  std::vector<std::atomic<int>> turns_;  // [slice]: heads that choose in this step, those that are owed it first
  std::vector<JointShares> joint_;       // [slice]: of the last layer whose heads chose together in this step
  std::vector<IndexScan*> scans_;        // of a layer, kept for its memory
  std::vector<int32_t> passing_of_;      // [slice][kv_head] index into passing_, or -1
  std::vector<int> order_;               // in which slices ask, kept for its memory
  std::vector<std::shared_ptr<RowRecall::Inflight>> to_send_;  // a step's requests
  std::atomic<size_t> next_to_send_{0};                        // of them
  std::atomic<bool> sending_{false};                           // one of them
  RecallRequests requests_;

  // Of the service, as synchronous recall sees it.
  absl::Time step_deadline_;
  bool silent_ = false;                          // it is not asked any more in this step
  absl::Duration pause_ = absl::ZeroDuration();  // 0: it answers in time
  absl::Time ask_again_ = absl::InfinitePast();

  // As asynchronous recall sees it.
  bool left_alone_ = false;                     // in this step
  int unanswered_ = 0;                          // steps in a row
  bool unanswered_now_ = false;                 // in this step
  absl::Duration rest_ = absl::ZeroDuration();  // 0: it answers in time
  absl::Time rested_ = absl::InfinitePast();
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_BATCH_RECALL_H_
