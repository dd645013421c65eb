// Fate of the evicted rows of a layer: merges them into kept ones (policies/retain/merge.h, merge_nearest.h) on the
// device. Exact blocks of all rows have been stored before: recall brings the originals.
#ifndef TIDEPOOL_WORKER_KV_ROW_MERGER_H_
#define TIDEPOOL_WORKER_KV_ROW_MERGER_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/types/span.h"
#include "base/bytes.h"
#include "policies/retain/compression_spec.h"
#include "policies/retain/merge.h"
#include "worker/backend/backend.h"
#include "worker/kv/resident_rows.h"
#include "worker/kv/retention_observer.h"
#include "worker/kv/window_attention.h"

namespace tidepool {

class RowMerger {
 public:
  RowMerger(const KvLayout& layout, const CompressionSpec& spec);

  // Slots of each kv head of the layer, by ascending position; the evicted ones are still there. Fate kMerge: as many
  // of each head. Rows merged. Calls for different layers may run at once where layers_at_once.
  int64_t Merge(Backend& backend, SequenceRows& rows, int layer, std::vector<std::vector<int32_t>> kept,
                absl::Span<const std::vector<int32_t>> evicted);

  // Fate kMerge, of few plain rows of each head, as many of each, where the kept rows that they are most like are
  // known, by Backend::MostLike: Likes by ascending position. Rows merged.
  struct Like {
    int32_t evicted = 0, target = 0;  // slots
    float similarity = 0;
  };
  using Likes = absl::InlinedVector<Like, 1>;
  int64_t MergeFew(Backend& backend, SequenceRows& rows, int layer, absl::Span<const Likes> heads);

  bool layers_at_once() const { return observer_ == nullptr; }

  // Told of merges; null: nobody.
  void set_observer(RetentionObserver* observer) { observer_ = observer; }

  void Save(ByteWriter& out) const;
  void Load(ByteReader& in);

 private:
  // By head, for each evicted row the kept one that it goes into, or -1. Changes `kept_rows`.
  using Targets = std::vector<std::vector<int32_t>>;
  // found: similarities and targets.
  Targets MergeLike(int layer, absl::Span<RowVectors> kept_rows, absl::Span<const RowVectors> evicted_rows,
                    MergeResult found);
  // The most similar of all kept rows.
  MergeResult FindAmong(absl::Span<const RowVectors> kept_rows, absl::Span<const RowVectors> evicted_rows) const;
  // Of few evicted rows: finds the kept rows that they go into without reading the others, and leaves the slots of
  // these alone in `kept`. False: they are many, or the backend cannot.
  bool FindLike(Backend& backend, const SequenceRows& rows, int layer, absl::Span<const RowVectors> evicted_rows,
                std::vector<std::vector<int32_t>>& kept, MergeResult& found) const;
  // Where the rows lie, without reading them. nullopt: the backend cannot.
  std::optional<int64_t> MergeInPlace(Backend& backend, SequenceRows& rows, int layer,
                                      absl::Span<const std::vector<int32_t>> kept,
                                      absl::Span<const std::vector<int32_t>> evicted);
  // The mixtures of what has been found and decided, where the rows lie. Rows merged.
  int64_t Mix(Backend& backend, SequenceRows& rows, int layer, absl::Span<const std::vector<int32_t>> kept,
              absl::Span<const std::vector<int32_t>> evicted, const MergeResult& result);
  // Where they have been read. `likes`: empty unless found.
  int64_t MergeRead(Backend& backend, SequenceRows& rows, int layer, absl::Span<const std::vector<int32_t>> kept,
                    absl::Span<const std::vector<int32_t>> evicted, absl::Span<const RowVectors> evicted_rows,
                    std::optional<MergeResult> likes);
  Targets MergeNearest(const SequenceRows& rows, int layer, absl::Span<const std::vector<int32_t>> kept,
                       absl::Span<const std::vector<int32_t>> evicted, absl::Span<RowVectors> kept_rows,
                       absl::Span<const RowVectors> evicted_rows) const;

  const KvLayout layout_;
  const Fate fate_;
  const MergeOptions options_;
  std::vector<MergeState> state_;  // by layer
  RetentionObserver* observer_ = nullptr;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_ROW_MERGER_H_
