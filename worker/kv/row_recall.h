// Recall for one sequence: the index of what may be recalled, which rows the current queries want, and the running
// thresholds. Which rows: recall.md section 5 (weights: softmax over the rows that are not kept, mean over the group's
// query heads) and section 6 (EMA threshold); arithmetic of selection in policies/recall.
#ifndef TIDEPOOL_WORKER_KV_ROW_RECALL_H_
#define TIDEPOOL_WORKER_KV_ROW_RECALL_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "base/bytes.h"
#include "policies/kv/kv_layout.h"
#include "policies/recall/ema_threshold.h"
#include "policies/recall/select_rows.h"
#include "policies/retain/compression_spec.h"
#include "worker/backend/backend.h"
#include "worker/kv/arrived_rows.h"
#include "worker/kv/block_log.h"
#include "worker/kv/joint_choice.h"
#include "worker/kv/key_index.h"
#include "worker/kv/missing_rows.h"
#include "worker/kv/query_ring.h"
#include "worker/kv/resident_rows.h"
#include "worker/kv/row_scores.h"
#include "worker/kv/row_staging.h"

namespace tidepool {

struct RecallCounters {
  int64_t recalled_rows = 0, recalled_bytes = 0;
  int64_t late_rows = 0;  // wanted by a step, asked for and given up: it took longer than budget_ms
  int64_t promoted_rows = 0;
  int64_t lost_rows = 0;  // wanted by a step and not to be had: the answer was computed without them
};

// What a (layer, kv head) wants for a step.
struct RowChoice {
  std::vector<int32_t> wanted;   // positions to install, best first
  std::vector<int32_t> victims;  // positions whose recall slots may be taken, in this order
  std::vector<int32_t> ahead;    // async: positions that a later step may want, best first; to be staged
};

class RowRecall {
 public:
  // staging: chunks that RowStaging takes; null: its own.
  RowRecall(const KvLayout& layout, int group, const RecallSpec& spec, std::shared_ptr<ChunkMemory> staging = nullptr);

  const RecallSpec& spec() const { return spec_; }
  // Recall slots for each (layer, kv head); 0 until something was evicted.
  int32_t slots() const { return slots_; }
  void set_slots(int32_t rows);
  // Rows of each (layer, kv head) that are kept ready in host memory when it has so many slots.
  static int32_t StagedRows(const RecallSpec& spec, int32_t slots);

  // Indexes a full block: kBlockTokens rows of the layout. prompt: of a prompt, or restored; else decoded. Calls for
  // different (layer, kv head) may run at once; blocks of one come in order.
  void AddBlock(int32_t block, int layer, int kv_head, const char* rows, bool prompt);
  // A prompt is in, and `ring` has its last queries, learning_queries() of them if there were as many.
  void Learn(Backend& backend, const QueryRing& ring);
  // The same for one (layer, kv head). weight: [head_dim], the root mean square of the queries by channel.
  void LearnHead(int layer, int kv_head, absl::Span<const float> weight) {
    index_->Learn(layer * layout_.kv_heads + kv_head, weight);
  }
  int learning_queries() const { return LearningQueries(spec_.index); }
  // Learn is due while decoding.
  bool learning_overdue() const { return index_->overdue(); }
  int64_t index_bytes() const;
  int64_t index_table_bytes() const { return index_->table_bytes(); }
  // Rows and keys that lie ready in host memory.
  int64_t staged_bytes() const { return staging_.bytes() + index_->held_bytes(); }

  // Before any head of a step chooses. prompt: of one, else it decodes. selects: the policy will, after this step.
  void BeginStep(bool prompt, bool selects) {
    answered_steps_ = prompt ? 0 : answered_steps_ + 1;
    rests_ = selects && !rests_;  // not in two in a row: a policy may select at every step
  }
  // async: an answer has just begun: every head chooses. The question's rows make room for the answer's, and what comes
  // late is missed most here, the more the fewer slots there are (decision 0008).
  bool begins_answer() const { return answered_steps_ > 0 && answered_steps_ <= kFirstSteps; }
  // async: and is short still. What a step wants is then asked for without what is fetched ahead.
  bool is_early() const { return answered_steps_ > 0 && answered_steps_ <= kEarlySteps; }
  // async: only heads that miss much choose in this step.
  bool rests() const { return rests_; }
  // async: whether a (layer, kv head) chooses in this step (RecallSpec::interval, turn). Once a step, before Score.
  bool Due(int layer, int kv_head, absl::Span<const float* const> queries);
  // There was no turn for it in this step: it is due in the next one, and goes first.
  void Owe(int layer, int kv_head) {
    head(layer, kv_head).query.clear();
    head(layer, kv_head).owed = true;
  }
  bool TakeOwed(int layer, int kv_head) { return std::exchange(head(layer, kv_head).owed, false); }
  int owed_heads() const {
    return static_cast<int>(std::count_if(heads_.begin(), heads_.end(), [](const HeadState& at) { return at.owed; }));
  }
  // It has asked for these, which it wants. Unless it chooses anew before, they are for the slots of `victims`, in this
  // order, or for free ones, when they have come.
  void Expect(int layer, int kv_head, absl::Span<const MissingPosition> wanted, absl::Span<const int32_t> victims);
  bool Expects(int layer, int kv_head) const { return !heads_[layer * layout_.kv_heads + kv_head].expected.empty(); }
  // Those of them that have come: wanted, with all victims. False: none.
  bool TakeExpected(int layer, int kv_head, RowChoice& choice);
  // What is left of the victims.
  void KeepVictims(int layer, int kv_head, std::vector<int32_t> victims) {
    head(layer, kv_head).victims = std::move(victims);
  }

  // First half of a choice: scores what is before `positions` for the group's queries [group][head_dim]. waits: the
  // step waits for rows. Calls for different (layer, kv head) may run at once, of both halves.
  void Score(const SequenceRows& rows, const BlockLog& log, int layer, int kv_head,
             absl::Span<const float* const> queries, int32_t positions, bool waits, RowScores& scores) const;
  // Score in two parts, for Backend::ScanIndexes between them. False: nothing to scan there, Score is to be called.
  bool PrepareScan(const SequenceRows& rows, const BlockLog& log, int layer, int kv_head,
                   absl::Span<const float* const> queries, int32_t positions, RowScores& scores, IndexScan& scan) const;
  void TakeScan(IndexScan& scan, bool waits, RowScores& scores) const;
  Chooser ChooserOf(int layer) const { return choosers_[layer]; }
  // Scores of a layer that wants what a layer below has chosen: by the attention that rows have there.
  void Follow(const SequenceRows& rows, const BlockLog& log, int layer, int kv_head, absl::Span<const float> shares,
              RowScores& scores) const;
  // Where heads choose together, before the second half: sets weights; then what all heads make of them decides.
  void Weigh(int layer, int kv_head, RowScores& scores) const;
  void ChooseBy(absl::Span<const float> shares, int layer, int kv_head, RowScores& scores) const {
    scores.SetJoint(shares, scores.is_listed ? 0.0f : Near(layer, kv_head));
  }
  // async, once scored: whether a choice could bring anything to speak of. Else the second half chooses nothing.
  bool WorthChoosing(const RowScores& scores) const;
  bool MeasuresWorth() const;
  // q.k of rows by their own keys: out[group][rows].
  void OwnScores(absl::Span<const float* const> queries, absl::Span<const char* const> rows, float* out) const;
  // Between them, for rows of the shortlist that can be had, once each and in any order: the scores of the rows' own
  // keys take the place of the estimates.
  void Compare(absl::Span<const float* const> queries, absl::Span<const int32_t> places,
               absl::Span<const char* const> rows, RowScores& scores) const;
  // Second half. `exact`: the best `slots` rows, whatever the threshold (sync).
  RowChoice Choose(int layer, int kv_head, RowScores& scores, bool exact);

  // Rows that have held their slots since `promote_after` tokens or more are the policy's from now on: for it to select
  // from. `tokens` have been seen.
  void Promote(SequenceRows& rows, int32_t tokens);

  RecallCounters& counters() { return counters_; }
  const RecallCounters& counters() const { return counters_; }
  void ResetCounters() { counters_ = RecallCounters(); }
  // Set when rows were lost and the request asked to fail then.
  const absl::Status& failure() const { return failure_; }
  void set_failure(absl::Status status) { failure_ = std::move(status); }

  void Save(ByteWriter& out) const;
  bool Load(ByteReader& in);

  // The sequence waits for its next turn: gives up the host memory of staged rows and of requests under way.
  void Rest();

  // Rows that are ready in host memory, and which have been asked for (async only).
  RowStaging& staging() { return staging_; }
  const RowStaging& staging() const { return staging_; }

  // What asynchronous steps have collected and not asked for yet.
  struct Unsent {
    std::vector<MissingRows> groups;
    int64_t rows = 0;
    int steps = 0;        // since the first of them
    bool urgent = false;  // a step missed some of them
  };
  Unsent unsent;

  // An asynchronous request under way: filled by the cache's thread.
  struct Inflight;
  std::vector<std::shared_ptr<Inflight>> inflight;  // shared while a step sends them; the type is recall_requests.cc's
  // What such requests have brought, until all heads have staged theirs.
  std::vector<std::unique_ptr<ArrivedRows>> arrived;

 private:
  // async: while an answer is no longer, little of what it wants is in host memory yet.
  static constexpr int kEarlySteps = 32;
  static constexpr int kFirstSteps = 4;

  struct HeadState {
    EmaThreshold threshold;
    std::vector<SlotRow> average;  // of rows that hold recall slots, ascending
    // async: the queries [group][head_dim] that chose last, and the steps since.
    std::vector<float> query;
    int age = 0;
    bool owed = false;
    std::vector<int32_t> expected, victims;  // async: wanted and under way, and whose slots they are for
    std::vector<float> key_lengths;          // trigger cosine: of all blocks' keys, by position
    // Of all blocks' keys, by channel: sums and sums of squares [2][head_dim], and their variance.
    int64_t keys = 0;
    std::vector<double> key_sum;
    std::vector<float> key_variance;
  };

  HeadState& head(int layer, int kv_head) { return heads_[layer * layout_.kv_heads + kv_head]; }
  void MeasureKeys(HeadState& state, absl::Span<const float> keys) const;
  // Rows with less are no runners-up; 0 where the threshold has no part.
  float Near(int layer, int kv_head) const;
  // async: what a row must weigh more than to be wanted.
  float LeastWanted(const HeadState& state, const RowScores& scores) const;
  // async: rows that the index gives no more than this are not compared. None is left out when an answer begins: where
  // all of a head's attention is on one row, a small error of the index leaves that row nothing.
  float Reach(float least) const;
  // Fills state; false when nothing can be chosen.
  bool FindCandidates(const SequenceRows& rows, const BlockLog& log, int layer, int kv_head, RowScores& scores) const;
  // Then slots.
  void FindSlots(const SequenceRows& rows, int layer, int kv_head, RowScores& scores) const;
  // Scores of rows [end - first][row_bytes] by their own keys, to the places from `first` of each query's scores, where
  // of_query is moved to.
  void ScoreRows(absl::Span<const float* const> queries, const char* rows, int32_t first, int32_t end,
                 absl::Span<float*> of_query) const;
  // Fills nearness and nearest, from the estimates.
  void SetNearness(const SequenceRows& rows, const BlockLog& log, int layer, int kv_head,
                   absl::Span<const float* const> queries, RowScores& scores) const;
  // Averages of the rows that hold slots go on; a new one starts with its weight.
  void Average(HeadState& state, RowScores& scores) const;

  const KvLayout layout_;
  const int group_;
  const RecallSpec spec_;
  const std::unique_ptr<KeyIndex> index_;
  const std::vector<Chooser> choosers_;  // of each layer
  int32_t slots_ = 0;
  int answered_steps_ = 0;  // decoding steps since the prompt, the one that has begun included
  bool rests_ = false;
  std::vector<HeadState> heads_;
  RowStaging staging_;
  RecallCounters counters_;
  absl::Status failure_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_ROW_RECALL_H_
