// Compression and recall flags of `generate`, `chat` and `inspect`.
#include "client/cli/compression_flags.h"

#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/byte_size.h"
#include "base/status_macros.h"

ABSL_FLAG(
    std::string, preset, "",
    "compression: full, a preset (tidepool policies lists them) or a name of the worker's --policies file; empty: "
    "full, or the session's own");
ABSL_FLAG(
    std::string, layer_budget, "",
    "what each layer keeps: uniform, pyramid, ada-pyramid, variance, lazy, equal-mass, best-rows; empty: the preset's");
ABSL_FLAG(std::string, head_budget, "",
          "what each kv head keeps: uniform, ada, layer-set, needed; empty: the preset's");
ABSL_FLAG(std::string, score, "", "what makes a row worth keeping (tidepool policies lists them); empty: the preset's");
ABSL_FLAG(std::string, schedule, "", "when rows leave: prefill, prefill-and-step, first-step; empty: the preset's");
ABSL_FLAG(std::string, fate, "", "of evicted rows on the device: drop, merge, merge-nearest; empty: the preset's");
ABSL_FLAG(std::vector<std::string>, score_options, {}, "numbers of the score's own: NAME=VALUE,...");
ABSL_FLAG(std::string, kv_precision, "f16",
          "of kept keys and values older than --residual-tokens: f16, int8, kivi4, kivi2");
ABSL_FLAG(std::optional<int>, residual_tokens, std::nullopt,
          "last tokens that stay at full precision, 0 to 65536; unset: 128");
ABSL_FLAG(
    std::string, budget, "",
    "what stays on the device: a share of the full cache (0.2), tokens of each layer and kv head (512), or bytes of "
    "the sequence (8MiB); empty: the preset's own, 0.2, but 1 for lighttransfer and simlayerkv");
ABSL_FLAG(std::string, decode_budget, "held",
          "held: the budget holds at every step; published: as the papers have it, what is gained while decoding comes "
          "on top");
ABSL_FLAG(
    std::string, prefill, "whole",
    "when the prompt is compressed: whole, when all of it is in; chunked, after every --compress-chunk tokens, for "
    "prompts longer than the worker's slot pool");
ABSL_FLAG(int, compress_chunk, 256, "tokens, a multiple of 64");
ABSL_FLAG(std::optional<int>, sink_tokens, std::nullopt,
          "first tokens that always stay, 0 to 1024; unset: the preset's");
ABSL_FLAG(std::optional<int>, window_tokens, std::nullopt,
          "last tokens of the prompt, which choose and always stay, 1 to 1024; unset: the preset's");
ABSL_FLAG(std::string, recall, "off", "how evicted rows come back: off, async, sync");
ABSL_FLAG(double, recall_share, 0.5, "of the budget that is recall slots: 0 to 0.75");
ABSL_FLAG(int, recall_rows, 0, "recall slots of each layer and kv head; 0: --recall-share decides");
ABSL_FLAG(int, recall_budget_ms, 20, "async: requests for rows that take longer are given up, 1 to 60000");
ABSL_FLAG(double, recall_staging, 8,
          "async: rows kept ready in the worker's host memory, as a multiple of the recall slots, 1 to 64");
ABSL_FLAG(std::optional<int>, recall_interval, std::nullopt,
          "async: steps after which a kv head chooses anew though its queries have not turned, 1 to 64; unset: 8");
ABSL_FLAG(std::optional<double>, recall_turn, std::nullopt,
          "async: a kv head chooses anew when its scores have moved apart by so much, nats, 0 to 100; 0: always; "
          "unset: 2; up to 1.5 times as much with recall slots for a tenth of the context");
ABSL_FLAG(std::optional<double>, recall_min_share, std::nullopt,
          "async: rows with less of a head's attention are left, 0 to 0.5; unset: 0.0005");
ABSL_FLAG(
    std::optional<int32_t>, recall_promote_after, std::nullopt,
    "a row that has held a recall slot for so many tokens is a candidate of the policy's next selection; 0: never");
ABSL_FLAG(std::string, recall_trigger, "score",
          "async: which rows a step wants: score, by their weight; cosine, D2O's test, by their cosine to a query");
ABSL_FLAG(
    std::string, recall_scope, "head",
    "whose queries choose what comes back: head, each kv head; layer, those of a layer together; filter, those of "
    "--recall-filter-layers for the layers up to the next");
ABSL_FLAG(std::vector<std::string>, recall_filter_layers, {},
          "scope filter: indices of layers; empty: 2 and those a quarter and nine sixteenths of the way up");
ABSL_FLAG(std::string, recall_index, "k4",
          "what rows are chosen by: k4, pq16x4, pq8x8 (a fifth of k4's bytes); to compare with: exact, page8, page16");
ABSL_FLAG(std::string, index_placement, "host", "where the index counts: host, device (inside the device budget)");
ABSL_FLAG(int, shortlist, -1,
          "rows beyond the slots whose own keys are compared before the choice, 0 to 65536; -1: 192 for pq16x4 and "
          "pq8x8, else 0");
ABSL_FLAG(std::string, on_recall_loss, "continue", "when rows cannot be recalled: continue, fail, recompute");

namespace tidepool::cli {
namespace {

// Flag values and what they stand for on the wire.
template <typename Wire>
struct Named {
  const char* name;
  Wire wire;
};

// An empty text leaves `wire` as it is.
template <typename Wire, size_t n>
absl::Status Choose(const char* flag, const Named<Wire> (&names)[n], const std::string& text, Wire& wire) {
  if (text.empty()) return absl::OkStatus();
  std::vector<std::string> known;
  for (const Named<Wire>& named : names) {
    if (text == named.name) {
      wire = named.wire;
      return absl::OkStatus();
    }
    known.push_back(named.name);
  }
  const std::string last = known.back();
  known.pop_back();
  return absl::InvalidArgumentError(
      absl::StrCat("--", flag, ": '", text, "' is not ", absl::StrJoin(known, ", "), " or ", last));
}

constexpr Named<v1::LayerBudget> kLayerBudgets[] = {{"uniform", v1::LAYER_BUDGET_UNIFORM},
                                                    {"pyramid", v1::LAYER_BUDGET_PYRAMID},
                                                    {"ada-pyramid", v1::LAYER_BUDGET_ADA_PYRAMID},
                                                    {"variance", v1::LAYER_BUDGET_VARIANCE},
                                                    {"lazy", v1::LAYER_BUDGET_LAZY},
                                                    {"equal-mass", v1::LAYER_BUDGET_EQUAL_MASS},
                                                    {"best-rows", v1::LAYER_BUDGET_BEST_ROWS}};
constexpr Named<v1::HeadBudget> kHeadBudgets[] = {{"uniform", v1::HEAD_BUDGET_UNIFORM},
                                                  {"ada", v1::HEAD_BUDGET_ADA},
                                                  {"layer-set", v1::HEAD_BUDGET_LAYER_SET},
                                                  {"needed", v1::HEAD_BUDGET_NEEDED}};
constexpr Named<v1::EvictionSchedule> kSchedules[] = {{"prefill", v1::EVICTION_SCHEDULE_PREFILL},
                                                      {"prefill-and-step", v1::EVICTION_SCHEDULE_PREFILL_AND_STEP},
                                                      {"first-step", v1::EVICTION_SCHEDULE_FIRST_STEP}};
constexpr Named<v1::Fate> kFates[] = {
    {"drop", v1::FATE_DROP}, {"merge", v1::FATE_MERGE}, {"merge-nearest", v1::FATE_MERGE_NEAREST}};
constexpr Named<v1::KvPrecision> kPrecisions[] = {{"f16", v1::KV_PRECISION_F16},
                                                  {"int8", v1::KV_PRECISION_INT8},
                                                  {"kivi4", v1::KV_PRECISION_KIVI4},
                                                  {"kivi2", v1::KV_PRECISION_KIVI2}};
constexpr Named<v1::DecodeBudget> kDecodeBudgets[] = {{"held", v1::DECODE_BUDGET_HELD},
                                                      {"published", v1::DECODE_BUDGET_PUBLISHED}};
constexpr Named<v1::PrefillMode> kPrefills[] = {{"whole", v1::PREFILL_MODE_WHOLE},
                                                {"chunked", v1::PREFILL_MODE_CHUNKED}};
constexpr Named<v1::RecallMode> kRecallModes[] = {
    {"off", v1::RECALL_MODE_OFF}, {"async", v1::RECALL_MODE_ASYNC}, {"sync", v1::RECALL_MODE_SYNC}};
constexpr Named<v1::RecallIndex> kIndexes[] = {{"k4", v1::RECALL_INDEX_K4},       {"pq16x4", v1::RECALL_INDEX_PQ16X4},
                                               {"pq8x8", v1::RECALL_INDEX_PQ8X8}, {"exact", v1::RECALL_INDEX_EXACT},
                                               {"page8", v1::RECALL_INDEX_PAGE8}, {"page16", v1::RECALL_INDEX_PAGE16}};
constexpr Named<v1::IndexPlacement> kPlacements[] = {{"host", v1::INDEX_PLACEMENT_HOST},
                                                     {"device", v1::INDEX_PLACEMENT_DEVICE}};
constexpr Named<v1::RecallTrigger> kTriggers[] = {{"score", v1::RECALL_TRIGGER_SCORE},
                                                  {"cosine", v1::RECALL_TRIGGER_COSINE}};
constexpr Named<v1::SelectScope> kScopes[] = {
    {"head", v1::SELECT_SCOPE_HEAD}, {"layer", v1::SELECT_SCOPE_LAYER}, {"filter", v1::SELECT_SCOPE_FILTER}};
constexpr Named<v1::OnRecallLoss> kOnLoss[] = {{"continue", v1::ON_RECALL_LOSS_CONTINUE},
                                               {"fail", v1::ON_RECALL_LOSS_FAIL},
                                               {"recompute", v1::ON_RECALL_LOSS_RECOMPUTE}};

absl::Status ReadBudget(v1::CompressionParams& compression) {
  const std::string budget = absl::GetFlag(FLAGS_budget);
  if (budget.empty()) return absl::OkStatus();
  if (absl::ascii_isalpha(static_cast<unsigned char>(budget.back()))) {
    const std::optional<uint64_t> bytes = ParseByteSize(budget);
    if (!bytes.has_value() || *bytes == 0 || *bytes > uint64_t{1} << 50) {
      return absl::InvalidArgumentError(absl::StrCat("--budget: '", budget, "' is no number of bytes, such as 8MiB"));
    }
    compression.set_budget_bytes(static_cast<int64_t>(*bytes));
    return absl::OkStatus();
  }
  double amount = 0;
  const bool is_number = absl::SimpleAtod(budget, &amount) && amount > 0 && amount <= (1 << 24);
  const bool is_share = absl::StrContains(budget, ".");
  if (!is_number || (is_share ? amount > 1 : amount != std::floor(amount))) {
    return absl::InvalidArgumentError(
        absl::StrCat("--budget: '", budget,
                     "' is neither a share with a point, above 0 to 1.0, nor a number of tokens or of bytes (8MiB)"));
  }
  if (is_share) {
    compression.set_budget_fraction(amount);
  } else {
    compression.set_budget_tokens(static_cast<int>(amount));
  }
  return absl::OkStatus();
}

absl::Status ReadHolding(v1::CompressionParams& compression) {
  v1::DecodeBudget decode = v1::DECODE_BUDGET_UNSPECIFIED;
  v1::PrefillMode prefill = v1::PREFILL_MODE_UNSPECIFIED;
  TP_RETURN_IF_ERROR(Choose("decode-budget", kDecodeBudgets, absl::GetFlag(FLAGS_decode_budget), decode));
  TP_RETURN_IF_ERROR(Choose("prefill", kPrefills, absl::GetFlag(FLAGS_prefill), prefill));
  if (decode == v1::DECODE_BUDGET_PUBLISHED) compression.set_decode_budget(decode);
  if (prefill == v1::PREFILL_MODE_CHUNKED) {
    compression.set_prefill(prefill);
    compression.set_prefill_chunk(absl::GetFlag(FLAGS_compress_chunk));
  }
  return absl::OkStatus();
}

absl::Status ReadStages(v1::CompressionParams& compression) {
  v1::LayerBudget layer = v1::LAYER_BUDGET_UNSPECIFIED;
  v1::HeadBudget head = v1::HEAD_BUDGET_UNSPECIFIED;
  v1::EvictionSchedule schedule = v1::EVICTION_SCHEDULE_UNSPECIFIED;
  v1::Fate fate = v1::FATE_UNSPECIFIED;
  v1::KvPrecision precision = v1::KV_PRECISION_UNSPECIFIED;
  TP_RETURN_IF_ERROR(Choose("layer-budget", kLayerBudgets, absl::GetFlag(FLAGS_layer_budget), layer));
  TP_RETURN_IF_ERROR(Choose("head-budget", kHeadBudgets, absl::GetFlag(FLAGS_head_budget), head));
  TP_RETURN_IF_ERROR(Choose("schedule", kSchedules, absl::GetFlag(FLAGS_schedule), schedule));
  TP_RETURN_IF_ERROR(Choose("fate", kFates, absl::GetFlag(FLAGS_fate), fate));
  TP_RETURN_IF_ERROR(Choose("kv-precision", kPrecisions, absl::GetFlag(FLAGS_kv_precision), precision));
  compression.set_layer_budget(layer);
  compression.set_head_budget(head);
  compression.set_schedule(schedule);
  compression.set_fate(fate);
  compression.set_score(absl::GetFlag(FLAGS_score));
  if (precision != v1::KV_PRECISION_F16) compression.set_kv_precision(precision);
  if (const std::optional<int> tokens = absl::GetFlag(FLAGS_residual_tokens); tokens.has_value()) {
    compression.set_residual_tokens(*tokens);
  }
  for (const std::string& entry : absl::GetFlag(FLAGS_score_options)) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(entry, absl::MaxSplits('=', 1));
    double value = 0;
    if (parts.first.empty() || !absl::SimpleAtod(parts.second, &value)) {
      return absl::InvalidArgumentError(absl::StrCat("--score-options: '", entry, "' is not NAME=VALUE"));
    }
    (*compression.mutable_score_options())[parts.first] = value;
  }
  return absl::OkStatus();
}

absl::Status ReadRecallScope(v1::RecallParams& recall) {
  v1::SelectScope scope = v1::SELECT_SCOPE_UNSPECIFIED;
  TP_RETURN_IF_ERROR(Choose("recall-scope", kScopes, absl::GetFlag(FLAGS_recall_scope), scope));
  if (scope != v1::SELECT_SCOPE_HEAD) recall.set_select_scope(scope);
  for (const std::string& text : absl::GetFlag(FLAGS_recall_filter_layers)) {
    int layer = 0;
    if (!absl::SimpleAtoi(text, &layer)) {
      return absl::InvalidArgumentError(absl::StrCat("--recall-filter-layers: '", text, "' is no layer's index"));
    }
    recall.add_filter_layers(layer);
  }
  return absl::OkStatus();
}

absl::Status ReadRecallIndex(v1::RecallParams& recall) {
  v1::RecallIndex index = v1::RECALL_INDEX_UNSPECIFIED;
  v1::IndexPlacement placement = v1::INDEX_PLACEMENT_UNSPECIFIED;
  v1::RecallTrigger trigger = v1::RECALL_TRIGGER_UNSPECIFIED;
  TP_RETURN_IF_ERROR(Choose("recall-index", kIndexes, absl::GetFlag(FLAGS_recall_index), index));
  TP_RETURN_IF_ERROR(Choose("index-placement", kPlacements, absl::GetFlag(FLAGS_index_placement), placement));
  TP_RETURN_IF_ERROR(Choose("recall-trigger", kTriggers, absl::GetFlag(FLAGS_recall_trigger), trigger));
  recall.set_trigger(trigger);
  recall.set_index(index);
  recall.set_index_placement(placement);
  const int shortlist = absl::GetFlag(FLAGS_shortlist);
  if (shortlist < -1 || shortlist > 65536) {
    return absl::InvalidArgumentError(absl::StrCat("--shortlist: ", shortlist, " is not in -1 to 65536"));
  }
  if (shortlist >= 0) recall.set_shortlist(shortlist);
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadCompressionFlags(v1::CompressionParams& compression) {
  const std::string preset = absl::GetFlag(FLAGS_preset);
  v1::RecallMode mode = v1::RECALL_MODE_OFF;
  v1::OnRecallLoss on_loss = v1::ON_RECALL_LOSS_UNSPECIFIED;
  TP_RETURN_IF_ERROR(Choose("recall", kRecallModes, absl::GetFlag(FLAGS_recall), mode));
  TP_RETURN_IF_ERROR(Choose("on-recall-loss", kOnLoss, absl::GetFlag(FLAGS_on_recall_loss), on_loss));
  if (mode != v1::RECALL_MODE_OFF && (preset.empty() || preset == "full")) {
    return absl::InvalidArgumentError("--recall: needs a --preset that evicts something");
  }
  v1::CompressionParams said;
  TP_RETURN_IF_ERROR(ReadStages(said));
  const bool stages = said.ByteSizeLong() > 0;
  TP_RETURN_IF_ERROR(ReadHolding(said));
  TP_RETURN_IF_ERROR(ReadBudget(said));  // a mistake is one also where the value is not used
  if (preset.empty() && stages) {
    return absl::InvalidArgumentError("--preset: is empty, but flags say how its stages are to be changed");
  }
  if (preset.empty()) return absl::OkStatus();
  if (preset != "full" || stages) compression = said;  // what full cannot have is the worker's to say
  compression.set_preset(preset);
  if (preset == "full") return absl::OkStatus();
  if (const std::optional<int> sink = absl::GetFlag(FLAGS_sink_tokens); sink.has_value()) {
    compression.set_sink_tokens(*sink);
  }
  if (const std::optional<int> window = absl::GetFlag(FLAGS_window_tokens); window.has_value()) {
    compression.set_window_tokens(*window);
  }
  if (mode == v1::RECALL_MODE_OFF) return absl::OkStatus();
  v1::RecallParams& recall = *compression.mutable_recall();
  recall.set_mode(mode);
  TP_RETURN_IF_ERROR(ReadRecallIndex(recall));
  TP_RETURN_IF_ERROR(ReadRecallScope(recall));
  recall.set_share(absl::GetFlag(FLAGS_recall_share));
  if (const int rows = absl::GetFlag(FLAGS_recall_rows); rows != 0) recall.set_rows(rows);
  recall.set_budget_ms(absl::GetFlag(FLAGS_recall_budget_ms));
  recall.set_staging(absl::GetFlag(FLAGS_recall_staging));
  if (const auto interval = absl::GetFlag(FLAGS_recall_interval)) recall.set_interval(*interval);
  if (const auto turn = absl::GetFlag(FLAGS_recall_turn)) recall.set_turn(*turn);
  if (const auto least = absl::GetFlag(FLAGS_recall_min_share)) recall.set_min_share(*least);
  if (const auto tokens = absl::GetFlag(FLAGS_recall_promote_after)) recall.set_promote_after(*tokens);
  recall.set_on_loss(on_loss);
  return absl::OkStatus();
}

}  // namespace tidepool::cli
