// What a request asks of compression: a preset name, the stages (layer budget, head budget, token score, fate of the
// evicted, and the schedule on which they act) and every number behind them. Presets are combinations of stages; a
// request may change any of them.
#ifndef TIDEPOOL_POLICIES_RETAIN_COMPRESSION_SPEC_H_
#define TIDEPOOL_POLICIES_RETAIN_COMPRESSION_SPEC_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "policies/kv/packed_page.h"

namespace tidepool {

// Sessions store these by value: add at the end.
// kEqualMass: the best rows of every layer hold the same share of its scores. kBestRows: as many as a layer has among
// the best rows of all layers.
enum class LayerBudgetRule { kAll, kUniform, kPyramid, kAdaPyramid, kVariance, kLazy, kEqualMass, kBestRows };
// kLayerSet: one kept set, the same in all heads of a layer. kNeeded: what the score lets stay, within the layer's
// rows.
enum class HeadBudgetRule { kUniform, kAda, kLayerSet, kNeeded };
enum class Schedule { kNever, kPrefill, kPrefillAndStep, kFirstStep };  // kFirstStep: once, by the first decoding step
// Of what is evicted, besides being recallable when recall is on. kMerge: into the kept row most like it, if it is like
// enough (D2O). kMergeNearest: into the kept row nearest by position, at the end of prompts (Elastic Cache).
enum class Fate { kDrop, kMerge, kMergeNearest };
enum class Pooling { kNone, kAvg, kMax };
enum class GroupReduce { kMean, kMax, kSum };  // query heads of a kv head to one score
// kHeld: rows and the index on the device stay within the budget at every step. kPublished: as the papers have it, rows
// gained while decoding and dense layers come on top.
enum class DecodeBudget { kHeld, kPublished };
// kChunked: the prompt is compressed after every prefill_chunk tokens, so that it may be longer than the device holds.
enum class PrefillMode { kWhole, kChunked };
enum class RecallMode { kOff, kAsync, kSync };
// kPq16x4, kPq8x8: head_dim / 4 codes of 4 bits, head_dim / 8 codes of 8 bits (the names are those for 64 channels).
// The last three are there to compare with: the keys themselves, and the bounds of pages of 8 and 16 rows.
enum class RecallIndex { kK4, kPq16x4, kPq8x8, kExact, kPage8, kPage16 };
enum class IndexPlacement { kDevice, kHost };
// kRecompute: the sequence is computed again from its tokens, and goes on where it was.
enum class OnRecallLoss { kContinue, kFail, kRecompute };
// What an asynchronous step wants rows by: kScore, a weight above the running average of the k-th best; kCosine, D2O's
// test, a cosine to a query above the running average of the best resident key's.
enum class RecallTrigger { kScore, kCosine };
// Whose queries choose what recall brings (recall.md section 5.3). kLayer: the kv heads of a layer together. kFilter:
// so the filter layers, and the layers up to the next one want the same rows.
enum class SelectScope { kHead, kLayer, kFilter };

struct RecallSpec {
  RecallMode mode = RecallMode::kOff;
  RecallIndex index = RecallIndex::kK4;
  // Rows beyond the slots that are the best by index and whose own keys are compared before the choice; 0: the index
  // decides alone; -1: ShortlistRows.
  int shortlist = -1;
  // kDevice: the index counts in the device budget.
  IndexPlacement placement = IndexPlacement::kHost;
  double share = 0.5;  // of the budgeted rows that are recall slots, 0 to 0.75
  int rows = 0;        // recall slots per (layer, kv head), out of the budget; 0: share decides
  RecallTrigger trigger = RecallTrigger::kScore;
  SelectScope select_scope = SelectScope::kHead;
  std::vector<int> filter_layers;  // kFilter; empty: FilterLayers
  // theta' = beta * theta + (1 - beta) * kth, 0 to 1 (recall.md section 6); kCosine: beta * best + (1 - beta) * theta
  double ema_beta = 0.7;
  double ema_margin = 1.0;    // wanted when w > margin * theta, >= 1
  int max_rows_per_step = 0;  // per (layer, kv head), async; 0: half of the recall slots
  int budget_ms = 20;         // async: requests that take longer are given up and their rows counted late
  double staging = 8;         // async: rows kept ready in host memory, as a multiple of the recall slots, 1 to 64
  int follow_rows = 8;        // async: positions after a wanted one that are fetched with it, 0 to 64
  // async: a (layer, kv head) chooses anew after so many steps, 1 to 64, or when its queries have turned: when the
  // change of q.k / sqrt(d) since it chose last has a standard deviation above `turn` over its keys, nats, 0 to 100; 0:
  // always. With slots for more than a twentieth of the context it counts for more, up to 1.5 times from a tenth on.
  int interval = 8;
  double turn = 2;
  double min_share = 0.0005;  // async: rows with less of a head's attention, by the index, are left, 0 to below 1
  // A row that has held a recall slot for so many tokens is a candidate of the policy's next selection, and so may take
  // the place of a row that the policy kept, 1 to 65,536 (recall.md section 7); 0: never. Off by
  // default: it brought nothing where it was measured (docs/policies/recall.md).
  int promote_after = 0;
  OnRecallLoss on_loss = OnRecallLoss::kContinue;

  friend bool operator==(const RecallSpec&, const RecallSpec&) = default;
};

struct CompressionSpec {
  std::string preset = "full";
  LayerBudgetRule layer_budget = LayerBudgetRule::kAll;
  HeadBudgetRule head_budget = HeadBudgetRule::kUniform;
  std::string score;  // a ScoreMethod's name; empty: none
  Schedule schedule = Schedule::kNever;
  Fate fate = Fate::kDrop;

  // The device budget: what the sequence's rows, recall slots and the recall index on the device take (budget_split.h).
  // Exactly one binds unless preset is full: bytes of the whole sequence, rows per (layer, kv head) on average, or a
  // fraction of what the full cache of the tokens seen would take (0 < f <= 1).
  double budget_fraction = 0.2;
  int budget_tokens = 0;                             // 0: not this one
  int64_t budget_bytes = 0;                          // 0: not this one
  DecodeBudget decode_budget = DecodeBudget::kHeld;  // while decoding
  int decode_interval = 32;  // held: steps from one selection to the next at most, where the rule itself acts once
  PrefillMode prefill = PrefillMode::kWhole;
  int prefill_chunk = 256;  // kChunked: tokens, a multiple of kBlockTokens

  int sink_tokens = 4;     // scores position and column, and some options' own: first rows that are never evicted
  int window_tokens = 32;  // snapkv family: observation window, always kept
  int pool_kernel = 7;     // odd
  Pooling pooling = Pooling::kMax;
  GroupReduce group_reduce = GroupReduce::kMean;
  double recent_share = 0.5;  // score column: recent / (heavy + recent); heavy is the rest

  double merge_ema_alpha = 0.5;  // d2o: tau' = alpha * tau + beta * mean similarity (arXiv 2406.13035, official code)
  double merge_ema_beta = 0.5;
  std::vector<int> dense_layers;  // never compressed; d2o adds 0, 1 and the last unless dense_layers_override
  bool dense_layers_override = false;

  int pyramid_beta = 20;       // pyramid: the last layer's past rows are about 1 / beta of the average
  double ada_floor = 0.2;      // ada: share of a head's average past rows that it has whatever its scores, 0 to 1
  bool ada_normalize = false;  // ada: weigh each head by the share of its scores that its best rows hold

  // Layer budget lazy: lazy layers keep their first and last rows, the others everything, or, where the budget binds,
  // what `score` chooses.
  int lazy_sinks = 4;
  int lazy_recent = 1020;
  int lazy_last = 32;            // the last prompt queries by which a layer is judged
  double lazy_share = 0.5;       // of all layers: the laziest are cut
  double lazy_threshold = 0;     // above 0: layers whose ratio is above it are cut, instead of a share; below 1
  std::vector<int> lazy_layers;  // not empty: these are cut, whatever their ratio

  int aha_recent = 32;       // ahakv: last rows that stay, and attention rows that a score sums
  int aha_value_kernel = 7;  // ahakv: pooling of the value prior, odd

  std::map<std::string, double> score_options;  // ScoreMethod::options; what is not there is as the method has it

  // Of the rows that are kept: groups of those older than the last residual_tokens tokens are packed. Recalled rows and
  // mixtures stay as they are.
  KvPrecision kv_precision = KvPrecision::kF16;
  int residual_tokens = 128;

  RecallSpec recall;

  friend bool operator==(const CompressionSpec&, const CompressionSpec&) = default;
};

// The names ListPolicies gives, in its order.
std::vector<std::string_view> PresetNames();
// NotFound naming the preset and listing the known ones.
absl::StatusOr<CompressionSpec> PresetSpec(std::string_view name);
// One line for ListPolicies and --help; empty for an unknown preset.
std::string_view PresetSummary(std::string_view name);
// InvalidArgument naming the field, its value and the allowed range, or the two fields that make no sense together.
// NotFound as in PresetSpec.
absl::Status ValidateCompression(const CompressionSpec& spec);
// Attention sums over all queries since the first token must be gathered: for the score, or for kVariance.
bool NeedsColumnSums(const CompressionSpec& spec);
// recall.shortlist, or the index's own: 192 for product codes, else 0. The rows are held in host memory.
int ShortlistRows(const RecallSpec& recall);
// recall.filter_layers, ascending, or those of a model of so many layers: 2, and a quarter and nine sixteenths of the
// way up (OmniKV's 2, 8 and 18 of 32).
std::vector<int> FilterLayers(const RecallSpec& recall, int layers);
// Rows that the policy never gives up and one more: a budget below it leaves nothing to decide.
int LeastKeptRows(const CompressionSpec& spec);
// A short stable text of everything that changes which KV is computed: part of the lineage of non-exact blocks.
std::string CompressionFingerprint(const CompressionSpec& spec);

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_RETAIN_COMPRESSION_SPEC_H_
