// Applies a compression policy to a sequence's resident rows: gathers the scores that the policy needs from the
// backend, asks policies/retain what stays, merges and evicts. Formulas: docs/policies.md.
//
// The rows that recall brought are none of its business: they are neither scored nor evicted here.
#ifndef TIDEPOOL_WORKER_KV_COMPRESSOR_H_
#define TIDEPOOL_WORKER_KV_COMPRESSOR_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "base/bytes.h"
#include "policies/retain/aha_scores.h"
#include "policies/retain/compression_spec.h"
#include "policies/retain/layer_budget.h"
#include "policies/retain/merge.h"
#include "worker/backend/backend.h"
#include "worker/kv/query_ring.h"
#include "worker/kv/resident_rows.h"

namespace tidepool {

struct CompressionCounters {
  int64_t evicted_rows = 0;  // that left the device, merged ones included
  int64_t merged_rows = 0;
};

class Compressor {
 public:
  Compressor(const KvLayout& layout, int query_heads, const CompressionSpec& spec);

  bool compresses() const { return spec_.schedule != Schedule::kNever; }
  // Rows have been evicted: what is computed from now on depends on it.
  bool compressed() const { return compressed_; }
  // The scores are attention sums over all rows, to be gathered from the first token on.
  bool keeps_column_sums() const { return spec_.score == ScoreRule::kColumn; }
  // Last queries to remember; 0: none.
  int query_window() const;

  // The prompt of a turn is in: layer budgets are set anew from `tokens`, and everything above them leaves. `ring`
  // holds the last queries when query_window() > 0.
  void AtPrefillEnd(Backend& backend, SequenceRows& rows, const QueryRing* ring, int32_t tokens);
  // A decoding step is over, `tokens` have been seen: policies that act at every step bring each head back within its
  // budget.
  void AfterStep(Backend& backend, SequenceRows& rows, const QueryRing* ring, int32_t tokens);

  const CompressionCounters& counters() const { return counters_; }
  void ResetCounters() { counters_ = CompressionCounters(); }

  void Save(ByteWriter& out) const;
  // False when the bytes are not those of a compressor of this model and policy.
  bool Load(ByteReader& in);

  // How the device budget is split (recall.md section 5): rows for each (layer, kv head) on average that the policy
  // keeps, at least what it never gives up, and recall slots. Of `tokens` tokens seen.
  static int32_t KeptRows(const CompressionSpec& spec, int32_t tokens);
  static int32_t RecallSlots(const CompressionSpec& spec, int32_t tokens);
  // A bound on what one head keeps.
  static int32_t MostKeptRows(const CompressionSpec& spec, int32_t tokens);
  // Tokens of a stored prefix that a prompt of `tokens` tokens may start from: its policy must still see the queries
  // (or have the attention sums) that it decides by.
  static int32_t ReusablePrefix(const CompressionSpec& spec, int32_t tokens);

 private:
  // Sets budgets_ from the whole sequence and brings all layers within them.
  void CompressAll(Backend& backend, SequenceRows& rows, const QueryRing* ring, int32_t tokens);
  std::vector<double> VarianceConcentrations(Backend& backend, const SequenceRows& rows) const;
  std::vector<int> ChooseLazyLayers(Backend& backend, const SequenceRows& rows, const QueryRing& ring,
                                    int32_t tokens) const;
  // at_prefill: of a whole prompt; else of one new row.
  void CompressLayer(Backend& backend, SequenceRows& rows, int layer, const QueryRing* ring, bool at_prefill);
  // Of the past rows of one kv head, `past` of `candidates`.
  std::vector<float> Scores(Backend& backend, const SequenceRows& rows, int layer, int kv_head, const QueryRing* ring,
                            absl::Span<const int32_t> candidates, int past) const;
  // kLastRow: of all rows of the layer, the same in all its heads.
  std::vector<float> LayerScores(Backend& backend, const SequenceRows& rows, int layer, const QueryRing& ring) const;
  void UpdateAha(Backend& backend, const SequenceRows& rows, int layer, int kv_head, const QueryRing& ring,
                 absl::Span<const int32_t> candidates, bool at_prefill);
  void Merge(Backend& backend, SequenceRows& rows, int layer, absl::Span<const std::vector<int32_t>> kept,
             absl::Span<const std::vector<int32_t>> evicted);

  const KvLayout layout_;
  const int group_;
  const CompressionSpec spec_;
  std::vector<LayerBudget> budgets_;  // by layer; empty until the first prompt is in
  std::vector<MergeState> merge_;     // by layer
  std::vector<AhaScores> aha_;        // kAha: by layer and kv head; made anew at the end of each prompt
  bool first_step_due_ = false;       // kFirstStep: the next decoding step compresses
  bool compressed_ = false;
  CompressionCounters counters_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_COMPRESSOR_H_
