#include "policies/retain/compression_spec.h"

#include <algorithm>
#include <charconv>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/limits.h"
#include "base/status_macros.h"
#include "policies/retain/preset_table.h"
#include "policies/retain/score_method.h"

namespace tidepool {
namespace {

constexpr int kMaxLayers = 1024;

template <typename T>
absl::Status InRange(const char* field, T value, T low, T high) {
  if (value >= low && value <= high) return absl::OkStatus();  // false for NaN
  return absl::InvalidArgumentError(absl::StrCat("compression.", field, ": ", value, " is not in ", low, " to ", high));
}

absl::Status Bad(const std::string& message) {
  return absl::InvalidArgumentError(absl::StrCat("compression.", message));
}

// `last` is the enum's last value; anything else can only come from outside.
template <typename E>
absl::Status InEnum(const char* field, E value, E last) {
  return InRange(field, static_cast<int>(value), 0, static_cast<int>(last));
}

// The shortest text that reads back as the same number.
std::string Exactly(double value) {
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, value).ptr;
  return std::string(text, end);
}

// A set of layers: order and repetition say nothing.
std::string LayerSet(std::vector<int> layers) {
  std::sort(layers.begin(), layers.end());
  layers.erase(std::unique(layers.begin(), layers.end()), layers.end());
  return absl::StrJoin(layers, ",");
}

absl::Status Layers(const char* field, const std::vector<int>& layers) {
  TP_RETURN_IF_ERROR(InRange(absl::StrCat(field, ": count").c_str(), static_cast<int64_t>(layers.size()), int64_t{0},
                             int64_t{kMaxLayers}));
  for (int layer : layers) TP_RETURN_IF_ERROR(InRange(field, layer, 0, kMaxLayers - 1));
  return absl::OkStatus();
}

absl::Status ValidateRecall(const CompressionSpec& spec) {
  const RecallSpec& recall = spec.recall;
  TP_RETURN_IF_ERROR(InEnum("recall.mode", recall.mode, RecallMode::kSync));
  TP_RETURN_IF_ERROR(InEnum("recall.index", recall.index, RecallIndex::kPage16));
  TP_RETURN_IF_ERROR(InEnum("recall.placement", recall.placement, IndexPlacement::kHost));
  TP_RETURN_IF_ERROR(InEnum("recall.on_loss", recall.on_loss, OnRecallLoss::kRecompute));
  TP_RETURN_IF_ERROR(InEnum("recall.trigger", recall.trigger, RecallTrigger::kCosine));
  TP_RETURN_IF_ERROR(InEnum("recall.select_scope", recall.select_scope, SelectScope::kFilter));
  if (recall.mode == RecallMode::kOff) return absl::OkStatus();
  if (spec.preset == "full") return Bad("recall.mode: preset full evicts nothing that could be recalled");
  TP_RETURN_IF_ERROR(InRange("recall.rows", recall.rows, 0, 1 << 20));
  TP_RETURN_IF_ERROR(InRange("recall.shortlist", recall.shortlist, -1, 1 << 16));
  TP_RETURN_IF_ERROR(InRange("recall.share", recall.share, 0.0, 0.75));
  if (recall.share == 0 && recall.rows == 0) {
    return Bad("recall.share: 0 leaves no recall slots unless recall.rows is set");
  }
  if (recall.trigger == RecallTrigger::kCosine && recall.mode == RecallMode::kSync) {
    return Bad("recall.trigger: cosine needs recall.mode async: sync brings the best rows whatever the threshold");
  }
  TP_RETURN_IF_ERROR(Layers("recall.filter_layers", recall.filter_layers));
  if (recall.select_scope != SelectScope::kHead && recall.trigger == RecallTrigger::kCosine) {
    return Bad("recall.select_scope: layer and filter choose by weight, which recall.trigger cosine does not");
  }
  if (recall.select_scope != SelectScope::kFilter && !recall.filter_layers.empty()) {
    return Bad("recall.filter_layers: are for recall.select_scope filter");
  }
  TP_RETURN_IF_ERROR(InRange("recall.ema_beta", recall.ema_beta, 0.0, 1.0));
  TP_RETURN_IF_ERROR(InRange("recall.ema_margin", recall.ema_margin, 1.0, 100.0));
  TP_RETURN_IF_ERROR(InRange("recall.max_rows_per_step", recall.max_rows_per_step, 0, 1 << 20));
  TP_RETURN_IF_ERROR(InRange("recall.budget_ms", recall.budget_ms, 1, 60'000));
  TP_RETURN_IF_ERROR(InRange("recall.staging", recall.staging, 1.0, 64.0));
  TP_RETURN_IF_ERROR(InRange("recall.follow_rows", recall.follow_rows, 0, 64));
  TP_RETURN_IF_ERROR(InRange("recall.interval", recall.interval, 1, 64));
  TP_RETURN_IF_ERROR(InRange("recall.turn", recall.turn, 0.0, 100.0));
  TP_RETURN_IF_ERROR(InRange("recall.min_share", recall.min_share, 0.0, 0.5));
  TP_RETURN_IF_ERROR(InRange("recall.promote_after", recall.promote_after, 0, 1 << 16));
  return absl::OkStatus();
}

absl::Status ValidatePrecision(const CompressionSpec& spec) {
  TP_RETURN_IF_ERROR(InEnum("kv_precision", spec.kv_precision, KvPrecision::kKivi2));
  return InRange("residual_tokens", spec.residual_tokens, 0, 1 << 16);
}

std::string PrecisionText(const CompressionSpec& spec) {
  if (spec.kv_precision == KvPrecision::kF16) return "";
  return absl::StrCat(":q", static_cast<int>(spec.kv_precision), ",", spec.residual_tokens);
}

absl::Status ValidateScore(const CompressionSpec& spec) {
  const ScoreMethod* method = FindScore(spec.score);
  if (method == nullptr) {
    std::vector<std::string> known;
    for (const ScoreMethod* score : AllScores()) known.emplace_back(score->name());
    return Bad(absl::StrCat("score: '", spec.score, "' is not known; there are ", absl::StrJoin(known, ", ")));
  }
  for (const auto& [name, value] : spec.score_options) {
    const auto options = method->options();
    const auto* option = std::find_if(options.begin(), options.end(),
                                      [&, &name = name](const ScoreOption& o) { return o.name == name; });
    if (option == options.end()) {
      return Bad(absl::StrCat("score_options: score ", spec.score, " has no option '", name, "'"));
    }
    TP_RETURN_IF_ERROR(InRange(absl::StrCat("score_options.", name).c_str(), value, option->low, option->high));
  }
  return absl::OkStatus();
}

bool SameStages(const CompressionSpec& a, const CompressionSpec& b) {
  return a.layer_budget == b.layer_budget && a.head_budget == b.head_budget && a.score == b.score &&
         a.schedule == b.schedule && a.fate == b.fate;
}

// Stages that contradict each other. Whatever passes has a meaning, though only the combinations of presets have a
// name.
absl::Status ValidateStages(const CompressionSpec& spec) {
  TP_RETURN_IF_ERROR(InEnum("layer_budget", spec.layer_budget, LayerBudgetRule::kBestRows));
  TP_RETURN_IF_ERROR(InEnum("head_budget", spec.head_budget, HeadBudgetRule::kNeeded));
  TP_RETURN_IF_ERROR(InEnum("schedule", spec.schedule, Schedule::kFirstStep));
  TP_RETURN_IF_ERROR(InEnum("fate", spec.fate, Fate::kMergeNearest));
  if (spec.preset == "full") {
    if (SameStages(spec, CompressionSpec()) && spec.score_options.empty()) return absl::OkStatus();
    return Bad("preset: full keeps everything, its stages cannot be changed: start from another preset");
  }
  if (spec.layer_budget == LayerBudgetRule::kAll) {
    return Bad("layer_budget: all leaves nothing to decide, that is preset full");
  }
  if (spec.schedule == Schedule::kNever) {
    return Bad("schedule: never leaves every row where it is, that is preset full");
  }
  TP_RETURN_IF_ERROR(ValidateScore(spec));
  const ScoreMethod& score = *FindScore(spec.score);
  if (spec.head_budget == HeadBudgetRule::kAda) {
    if (!score.ranks()) {
      return Bad(absl::StrCat("head_budget: ada makes no sense with score ", spec.score,
                              ": heads share rows by their scores, and it gives none"));
    }
    if (spec.fate == Fate::kMerge) {
      return Bad("head_budget: ada makes no sense with fate merge: heads vote on the same number of evicted rows each");
    }
  }
  if ((spec.head_budget == HeadBudgetRule::kLayerSet) != score.layer_wide()) {
    return Bad(score.layer_wide() ? absl::StrCat("score: ", spec.score,
                                                 " is one score for the whole layer, head_budget must be the layer set")
                                  : absl::StrCat("head_budget: one set for the layer makes no sense with score ",
                                                 spec.score, ", which each head has of its own"));
  }
  if (spec.head_budget == HeadBudgetRule::kNeeded && !score.leaves_room()) {
    return Bad(absl::StrCat("head_budget: needed makes no sense with score ", spec.score,
                            ", which lets every row stay that there is room for"));
  }
  const bool by_scores =
      spec.layer_budget == LayerBudgetRule::kEqualMass || spec.layer_budget == LayerBudgetRule::kBestRows;
  if (by_scores && (!score.ranks() || score.layer_wide())) {
    const char* rule = spec.layer_budget == LayerBudgetRule::kEqualMass ? "equal mass" : "best rows";
    return Bad(absl::StrCat("layer_budget: ", rule, " makes no sense with score ", spec.score,
                            ", which does not say what the rows of each head hold"));
  }
  if (score.leaves_room() && spec.fate == Fate::kMerge) {
    return Bad(absl::StrCat("fate: merge makes no sense with score ", spec.score,
                            ", whose heads evict different numbers of rows"));
  }
  if (!score.each_step() && spec.schedule == Schedule::kPrefillAndStep && spec.layer_budget != LayerBudgetRule::kLazy) {
    return Bad(absl::StrCat("schedule: every step makes no sense with score ", spec.score,
                            ", which is made at the end of a prompt"));
  }
  if (score.RepeatedTokens(spec) > 0) {
    if (spec.layer_budget == LayerBudgetRule::kVariance) {
      return Bad(absl::StrCat("layer_budget: variance makes no sense with score ", spec.score,
                              ", whose repetition of the prompt would count as attention"));
    }
    if (spec.prefill == PrefillMode::kChunked) {
      return Bad(absl::StrCat("prefill: chunked makes no sense with score ", spec.score,
                              ", which needs the whole prompt to repeat it"));
    }
  }
  return absl::OkStatus();
}

absl::Status ValidatePyramidAndAda(const CompressionSpec& spec) {
  TP_RETURN_IF_ERROR(InRange("pyramid_beta", spec.pyramid_beta, 1, 1 << 20));
  return InRange("ada_floor", spec.ada_floor, 0.0, 1.0);
}

absl::Status ValidateLazy(const CompressionSpec& spec) {
  TP_RETURN_IF_ERROR(InRange("lazy_sinks", spec.lazy_sinks, 0, 1 << 20));
  TP_RETURN_IF_ERROR(InRange("lazy_recent", spec.lazy_recent, 1, 1 << 20));
  TP_RETURN_IF_ERROR(InRange("lazy_last", spec.lazy_last, 1, 1024));
  TP_RETURN_IF_ERROR(InRange("lazy_share", spec.lazy_share, 0.0, 1.0));
  if (!(spec.lazy_threshold >= 0 && spec.lazy_threshold < 1)) {
    return Bad(absl::StrCat("lazy_threshold: ", spec.lazy_threshold, " is not in [0, 1)"));
  }
  TP_RETURN_IF_ERROR(Layers("lazy_layers", spec.lazy_layers));
  for (int layer : spec.lazy_layers) {
    if (std::find(spec.dense_layers.begin(), spec.dense_layers.end(), layer) != spec.dense_layers.end()) {
      return Bad(absl::StrCat("lazy_layers: layer ", layer, " is also in dense_layers, it cannot be cut and kept"));
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateAha(const CompressionSpec& spec) {
  TP_RETURN_IF_ERROR(InRange("aha_recent", spec.aha_recent, 1, 1024));
  TP_RETURN_IF_ERROR(InRange("aha_value_kernel", spec.aha_value_kernel, 1, 255));
  if (spec.aha_value_kernel % 2 == 0) {
    return Bad(absl::StrCat("aha_value_kernel: ", spec.aha_value_kernel, " is even, an odd one is needed"));
  }
  return absl::OkStatus();
}

// What is left to the policy must hold what it never gives up (SnapKV's code asserts capacity > window), and the row of
// the step under way. Budgets that depend on lengths or on the model are looked at when these are known.
absl::Status ValidateLeastBudget(const CompressionSpec& spec) {
  if (spec.budget_tokens == 0 || spec.preset == "full") return absl::OkStatus();
  const bool recalls = spec.recall.mode != RecallMode::kOff;
  const int slots = !recalls               ? 0
                    : spec.recall.rows > 0 ? spec.recall.rows
                                           : std::max(1, static_cast<int>(spec.budget_tokens * spec.recall.share));
  const int held = spec.decode_budget == DecodeBudget::kHeld ? 1 : 0;
  const int kept = spec.budget_tokens - slots, least = LeastKeptRows(spec) + held;
  if (kept >= least) return absl::OkStatus();
  return Bad(absl::StrCat("budget_tokens: ", spec.budget_tokens, " leaves ", kept, " kept rows",
                          slots > 0 ? absl::StrCat(" besides ", slots, " recall slots") : "", ", preset ", spec.preset,
                          " needs at least ", least, " (", std::string(FindScore(spec.score)->least_fields()),
                          held ? ", and the row of the step under way)" : ")"));
}

}  // namespace

std::vector<std::string_view> PresetNames() {
  std::vector<std::string_view> names;
  for (const Preset& preset : AllPresets()) names.push_back(preset.name);
  return names;
}

absl::StatusOr<CompressionSpec> PresetSpec(std::string_view name) {
  const Preset* preset = FindPreset(name);
  if (preset == nullptr) {
    const std::vector<std::string_view> names = PresetNames();
    return absl::NotFoundError(absl::StrCat("compression.preset: '", std::string(name), "' is not known; there are ",
                                            absl::StrJoin(std::vector<std::string>(names.begin(), names.end()), ", ")));
  }
  return preset->make();
}

std::string_view PresetSummary(std::string_view name) {
  const Preset* preset = FindPreset(name);
  return preset != nullptr ? preset->summary : "";
}

int ShortlistRows(const RecallSpec& recall) {
  if (recall.shortlist >= 0) return recall.shortlist;
  return recall.index == RecallIndex::kPq16x4 || recall.index == RecallIndex::kPq8x8 ? 192 : 0;
}

std::vector<int> FilterLayers(const RecallSpec& recall, int layers) {
  std::vector<int> filters = recall.filter_layers;
  if (filters.empty()) filters = {std::min(2, layers - 1), layers / 4, layers * 9 / 16};
  std::sort(filters.begin(), filters.end());
  filters.erase(std::unique(filters.begin(), filters.end()), filters.end());
  return filters;
}

int LeastKeptRows(const CompressionSpec& spec) {
  const ScoreMethod* score = FindScore(spec.score);
  return score != nullptr ? score->LeastRows(spec) : 1;
}

bool NeedsColumnSums(const CompressionSpec& spec) {
  const ScoreMethod* score = FindScore(spec.score);
  return spec.layer_budget == LayerBudgetRule::kVariance || (score != nullptr && score->needs_column_sums());
}

absl::Status ValidateCompression(const CompressionSpec& spec) {
  if (FindPreset(spec.preset) == nullptr) return PresetSpec(spec.preset).status();
  TP_RETURN_IF_ERROR(ValidateStages(spec));
  TP_RETURN_IF_ERROR(InRange("budget_tokens", spec.budget_tokens, 0, 1 << 24));
  TP_RETURN_IF_ERROR(InRange("budget_bytes", spec.budget_bytes, int64_t{0}, int64_t{1} << 50));
  if (spec.budget_tokens > 0 && spec.budget_bytes > 0) {
    return Bad(absl::StrCat("budget_bytes: ", spec.budget_bytes, " and budget_tokens ", spec.budget_tokens,
                            " are both set, only one can bind"));
  }
  TP_RETURN_IF_ERROR(InEnum("decode_budget", spec.decode_budget, DecodeBudget::kPublished));
  TP_RETURN_IF_ERROR(InRange("decode_interval", spec.decode_interval, 1, 1024));
  TP_RETURN_IF_ERROR(InEnum("prefill", spec.prefill, PrefillMode::kChunked));
  TP_RETURN_IF_ERROR(InRange("prefill_chunk", spec.prefill_chunk, kBlockTokens, 1 << 16));
  if (spec.prefill == PrefillMode::kChunked && spec.preset == "full") {
    return Bad("prefill: preset full evicts nothing, its prompts cannot be compressed chunk by chunk");
  }
  if (spec.prefill_chunk % kBlockTokens != 0) {
    return Bad(absl::StrCat("prefill_chunk: ", spec.prefill_chunk, " is not a multiple of ", kBlockTokens));
  }
  if (spec.preset != "full" && spec.budget_tokens == 0 && spec.budget_bytes == 0) {
    if (!(spec.budget_fraction > 0 && spec.budget_fraction <= 1)) {
      return Bad(absl::StrCat("budget_fraction: ", spec.budget_fraction, " is not in (0, 1]"));
    }
  }
  TP_RETURN_IF_ERROR(InRange("sink_tokens", spec.sink_tokens, 0, 1024));
  TP_RETURN_IF_ERROR(InRange("window_tokens", spec.window_tokens, 1, 1024));
  TP_RETURN_IF_ERROR(InRange("pool_kernel", spec.pool_kernel, 1, 255));
  if (spec.pool_kernel % 2 == 0) {
    return Bad(absl::StrCat("pool_kernel: ", spec.pool_kernel, " is even, an odd one is needed"));
  }
  TP_RETURN_IF_ERROR(InEnum("pooling", spec.pooling, Pooling::kMax));
  TP_RETURN_IF_ERROR(InEnum("group_reduce", spec.group_reduce, GroupReduce::kSum));
  if (!(spec.recent_share > 0 && spec.recent_share < 1)) {
    return Bad(absl::StrCat("recent_share: ", spec.recent_share, " is not between 0 and 1"));
  }
  TP_RETURN_IF_ERROR(InRange("merge_ema_alpha", spec.merge_ema_alpha, 0.0, 1.0));
  TP_RETURN_IF_ERROR(InRange("merge_ema_beta", spec.merge_ema_beta, 0.0, 1.0));
  if (!(spec.merge_ema_alpha + spec.merge_ema_beta <= 1.0 + 1e-9)) {
    return Bad(absl::StrCat("merge_ema_alpha + merge_ema_beta: ", spec.merge_ema_alpha, " + ", spec.merge_ema_beta,
                            " is above 1, the threshold would outgrow every similarity"));
  }
  TP_RETURN_IF_ERROR(Layers("dense_layers", spec.dense_layers));
  TP_RETURN_IF_ERROR(ValidatePyramidAndAda(spec));
  TP_RETURN_IF_ERROR(ValidateLazy(spec));
  TP_RETURN_IF_ERROR(ValidateAha(spec));
  TP_RETURN_IF_ERROR(ValidatePrecision(spec));
  TP_RETURN_IF_ERROR(ValidateRecall(spec));
  return ValidateLeastBudget(spec);
}

std::string CompressionFingerprint(const CompressionSpec& spec) {
  if (spec.preset == "full") return absl::StrCat("full", PrecisionText(spec));
  std::string text = spec.budget_bytes > 0    ? absl::StrCat(spec.preset, ":B", spec.budget_bytes)
                     : spec.budget_tokens > 0 ? absl::StrCat(spec.preset, ":t", spec.budget_tokens)
                                              : absl::StrCat(spec.preset, ":f", Exactly(spec.budget_fraction));
  absl::StrAppend(&text, ":s", spec.sink_tokens, ":w", spec.window_tokens, ":k", spec.pool_kernel, ":p",
                  static_cast<int>(spec.pooling), ":g", static_cast<int>(spec.group_reduce), ":r",
                  Exactly(spec.recent_share), ":a", Exactly(spec.merge_ema_alpha), ":b", Exactly(spec.merge_ema_beta),
                  ":d", LayerSet(spec.dense_layers), spec.dense_layers_override ? "!" : "");
  // Stored lineages hold these texts: what a preset does not use stays out of its text.
  if (spec.layer_budget == LayerBudgetRule::kPyramid || spec.layer_budget == LayerBudgetRule::kAdaPyramid) {
    absl::StrAppend(&text, ":y", spec.pyramid_beta);
  }
  if (spec.head_budget == HeadBudgetRule::kAda) {
    absl::StrAppend(&text, ":h", Exactly(spec.ada_floor), spec.ada_normalize ? "n" : "");
  }
  if (spec.layer_budget == LayerBudgetRule::kLazy) {
    absl::StrAppend(&text, ":l", spec.lazy_sinks, ",", spec.lazy_recent, ",", spec.lazy_last, ",",
                    Exactly(spec.lazy_share), ",", Exactly(spec.lazy_threshold), ",", LayerSet(spec.lazy_layers));
  }
  if (spec.score == "aha") absl::StrAppend(&text, ":v", spec.aha_recent, ",", spec.aha_value_kernel);
  const Preset* preset = FindPreset(spec.preset);
  if (preset != nullptr && !SameStages(spec, preset->make())) {
    absl::StrAppend(&text, ":x", static_cast<int>(spec.layer_budget), ",", static_cast<int>(spec.head_budget), ",",
                    spec.score, ",", static_cast<int>(spec.schedule), ",", static_cast<int>(spec.fate));
  }
  for (const auto& [name, value] : spec.score_options) absl::StrAppend(&text, ":o", name, "=", Exactly(value));
  if (spec.decode_budget == DecodeBudget::kHeld) absl::StrAppend(&text, ":e", spec.decode_interval);
  if (spec.prefill == PrefillMode::kChunked) absl::StrAppend(&text, ":c", spec.prefill_chunk);
  absl::StrAppend(&text, PrecisionText(spec));
  const RecallSpec& recall = spec.recall;
  if (recall.mode == RecallMode::kOff) return text;
  absl::StrAppend(&text, ":m", static_cast<int>(recall.mode), ",", static_cast<int>(recall.index), ",",
                  static_cast<int>(recall.placement), ",", Exactly(recall.share), ",", recall.rows, ",",
                  Exactly(recall.ema_beta), ",", Exactly(recall.ema_margin), ",", recall.max_rows_per_step, ",",
                  Exactly(recall.staging), ",", recall.follow_rows, ",", ShortlistRows(recall), ",", recall.interval,
                  ",", Exactly(recall.turn), ",", Exactly(recall.min_share), ",", recall.promote_after, ",",
                  static_cast<int>(recall.trigger));
  if (recall.select_scope != SelectScope::kHead) {
    absl::StrAppend(&text, ",s", static_cast<int>(recall.select_scope), LayerSet(recall.filter_layers));
  }
  return text;
}

}  // namespace tidepool
