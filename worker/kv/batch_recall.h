// Recall inside the steps of a batch: the hook between a layer's projections and its attention.
//
// sync: every layer of every token chooses by its own queries, fetches what is missing in one request for the whole
// batch and installs it before the layer attends. Deterministic: what is attended to is the best rows by index.
//
// async: the choice of step t is fetched while it ends and installed when step t + 1 begins; what has not arrived
// within budget_ms is late and discarded. The tokens of a later turn's prompt are recalled synchronously, so that the
// first token of the answer sees what the question asks for.
#ifndef TIDEPOOL_WORKER_KV_BATCH_RECALL_H_
#define TIDEPOOL_WORKER_KV_BATCH_RECALL_H_

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "cacheservice/api/block_cache.h"
#include "worker/backend/backend.h"
#include "worker/kv/block_log.h"
#include "worker/kv/query_ring.h"
#include "worker/kv/resident_rows.h"
#include "worker/kv/row_recall.h"

namespace tidepool {

// One slice of a step, as recall sees it.
struct RecallSlice {
  SequenceRows* rows = nullptr;
  BlockLog* log = nullptr;
  RowRecall* recall = nullptr;  // null: no recall
  QueryRing* ring = nullptr;    // null: queries need not be remembered
  int32_t first_position = 0;
  int32_t tokens = 0;
  bool prompt = false;  // tokens of a prompt
};

class BatchRecall : public StepHook {
 public:
  // `cache` may be null when no slice recalls.
  BatchRecall(Backend* backend, BlockCache* cache, int query_heads, absl::Duration sync_deadline);

  // Before Backend::Step with slices in its order: installs what asynchronous requests have brought.
  void Begin(std::vector<RecallSlice> slices);
  void BeforeAttention(int layer, absl::Span<const SliceQueries> queries) override;
  // After it: sends the asynchronous requests.
  void End();

 private:
  struct Want {
    int slice, layer, kv_head;
    int32_t position;
  };
  struct Group;  // wants of one stored block and kv head

  bool Active(const RecallSlice& slice) const;
  bool Synchronous(const RecallSlice& slice) const;
  void Fetch(std::vector<Want> wants, int layer);
  // Puts a row into a recall slot, taking the first victim's when none is free, or back in place of its mixture.
  void Install(RecallSlice& slice, int layer, int kv_head, int32_t position, const char* row,
               std::vector<int32_t>& victims);
  void InstallArrived(RecallSlice& slice);
  static std::vector<Group> GroupByBlock(std::vector<Want>& wants, absl::Span<const RecallSlice> slices);

  Backend* const backend_;
  BlockCache* const cache_;
  const int query_heads_;
  const absl::Duration sync_deadline_;
  std::vector<RecallSlice> slices_;
  std::vector<std::vector<RowChoice>> choices_;        // [slice][kv_head] of the current layer
  std::vector<std::vector<RowChoice>> async_choices_;  // [slice][layer * kv_heads + kv_head]
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_BATCH_RECALL_H_
