#include "policies/retain/compression_spec.h"

#include <algorithm>
#include <charconv>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/limits.h"
#include "base/status_macros.h"
#include "policies/retain/preset_table.h"

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

absl::Status ValidateRecall(const CompressionSpec& spec) {
  const RecallSpec& recall = spec.recall;
  TP_RETURN_IF_ERROR(InEnum("recall.mode", recall.mode, RecallMode::kSync));
  TP_RETURN_IF_ERROR(InEnum("recall.index", recall.index, RecallIndex::kPage16));
  TP_RETURN_IF_ERROR(InEnum("recall.placement", recall.placement, IndexPlacement::kHost));
  TP_RETURN_IF_ERROR(InEnum("recall.on_loss", recall.on_loss, OnRecallLoss::kFail));
  if (recall.mode == RecallMode::kOff) return absl::OkStatus();
  if (spec.preset == "full") return Bad("recall.mode: preset full evicts nothing that could be recalled");
  TP_RETURN_IF_ERROR(InRange("recall.rows", recall.rows, 0, 1 << 20));
  TP_RETURN_IF_ERROR(InRange("recall.shortlist", recall.shortlist, -1, 1 << 16));
  TP_RETURN_IF_ERROR(InRange("recall.share", recall.share, 0.0, 0.75));
  if (recall.share == 0 && recall.rows == 0) {
    return Bad("recall.share: 0 leaves no recall slots unless recall.rows is set");
  }
  TP_RETURN_IF_ERROR(InRange("recall.ema_beta", recall.ema_beta, 0.0, 1.0));
  TP_RETURN_IF_ERROR(InRange("recall.ema_margin", recall.ema_margin, 1.0, 100.0));
  TP_RETURN_IF_ERROR(InRange("recall.max_rows_per_step", recall.max_rows_per_step, 0, 1 << 20));
  TP_RETURN_IF_ERROR(InRange("recall.budget_ms", recall.budget_ms, 1, 60'000));
  TP_RETURN_IF_ERROR(InRange("recall.staging", recall.staging, 1.0, 64.0));
  TP_RETURN_IF_ERROR(InRange("recall.follow_rows", recall.follow_rows, 0, 64));
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

absl::Status Layers(const char* field, const std::vector<int>& layers) {
  TP_RETURN_IF_ERROR(InRange(absl::StrCat(field, ": count").c_str(), static_cast<int64_t>(layers.size()), int64_t{0},
                             int64_t{kMaxLayers}));
  for (int layer : layers) TP_RETURN_IF_ERROR(InRange(field, layer, 0, kMaxLayers - 1));
  return absl::OkStatus();
}

// Stages that contradict each other (policies.md section 11). Whatever passes has a meaning, though only the
// combinations in preset_table.cc have a name.
absl::Status ValidateStages(const CompressionSpec& spec) {
  const bool all = spec.layer_budget == LayerBudgetRule::kAll;
  if (all != (spec.schedule == Schedule::kNever)) {
    return Bad(all ? "layer_budget: all makes no sense with a schedule: nothing is over its budget"
                   : "layer_budget: rows are limited, but schedule never evicts none");
  }
  if (!all && spec.score == ScoreRule::kNone) {
    return Bad("score: none makes no sense with a layer_budget that limits rows: nothing says which stay");
  }
  if (spec.head_budget == HeadBudgetRule::kAda) {
    if (spec.score == ScoreRule::kNone || spec.score == ScoreRule::kPosition) {
      return Bad("head_budget: ada makes no sense with score position or none: heads share rows by their scores");
    }
    if (spec.score == ScoreRule::kLastRow) {
      return Bad("head_budget: ada makes no sense with score last row, which gives one kept set to the whole layer");
    }
    if (spec.fate == Fate::kMerge) {
      return Bad("head_budget: ada makes no sense with fate merge: heads vote on the same number of evicted rows each");
    }
  }
  if ((spec.head_budget == HeadBudgetRule::kLayerSet) != (spec.score == ScoreRule::kLastRow)) {
    return Bad(spec.score == ScoreRule::kLastRow
                   ? "score: last row is one score for the whole layer, head_budget must be the layer's set"
                   : "head_budget: one set for the layer makes no sense with a score that each head has of its own");
  }
  if (spec.layer_budget == LayerBudgetRule::kLazy && spec.score != ScoreRule::kPosition) {
    return Bad("layer_budget: lazy layers keep their first and last rows, which only score position does");
  }
  if (spec.score == ScoreRule::kWindow && spec.schedule == Schedule::kPrefillAndStep) {
    return Bad("score: window makes no sense with a schedule of every step: it is made of the prompt's last queries");
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

// The fields that LeastKeptRows adds up.
const char* LeastKeptFields(const CompressionSpec& spec) {
  if (spec.layer_budget == LayerBudgetRule::kLazy) return "window_tokens + 1";
  switch (spec.score) {
    case ScoreRule::kWindow: return "window_tokens + 1";
    case ScoreRule::kAha: return "aha_recent + 1";
    case ScoreRule::kLastRow: return "one row";
    case ScoreRule::kColumn:
      if (spec.layer_budget != LayerBudgetRule::kVariance) return "a heavy one and a recent one";
      return "sink_tokens + 1";
    default: return "sink_tokens + 1";
  }
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
                          " needs at least ", least, " (", LeastKeptFields(spec),
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

int LeastKeptRows(const CompressionSpec& spec) {
  if (spec.layer_budget == LayerBudgetRule::kLazy) return spec.window_tokens + 1;
  switch (spec.score) {
    case ScoreRule::kWindow: return spec.window_tokens + 1;
    case ScoreRule::kAha: return spec.aha_recent + 1;
    case ScoreRule::kLastRow: return 1;
    case ScoreRule::kColumn: return spec.layer_budget == LayerBudgetRule::kVariance ? spec.sink_tokens + 1 : 2;
    default: return spec.sink_tokens + 1;
  }
}

absl::Status ValidateCompression(const CompressionSpec& spec) {
  const Preset* preset = FindPreset(spec.preset);
  if (preset == nullptr) return PresetSpec(spec.preset).status();
  TP_RETURN_IF_ERROR(ValidateStages(spec));
  if (const CompressionSpec base = preset->make();
      spec.layer_budget != base.layer_budget || spec.head_budget != base.head_budget || spec.score != base.score ||
      spec.schedule != base.schedule || (spec.fate != base.fate && spec.fate != Fate::kDrop)) {
    return Bad(absl::StrCat("preset: the stages of '", spec.preset, "' are fixed"));
  }
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
  if (spec.score == ScoreRule::kAha) {
    absl::StrAppend(&text, ":v", spec.aha_recent, ",", spec.aha_value_kernel);
  }
  const Preset* preset = FindPreset(spec.preset);
  if (preset != nullptr && preset->make().fate != spec.fate) absl::StrAppend(&text, ":x", static_cast<int>(spec.fate));
  if (spec.decode_budget == DecodeBudget::kHeld) absl::StrAppend(&text, ":e", spec.decode_interval);
  if (spec.prefill == PrefillMode::kChunked) absl::StrAppend(&text, ":c", spec.prefill_chunk);
  absl::StrAppend(&text, PrecisionText(spec));
  const RecallSpec& recall = spec.recall;
  if (recall.mode == RecallMode::kOff) return text;
  absl::StrAppend(&text, ":m", static_cast<int>(recall.mode), ",", static_cast<int>(recall.index), ",",
                  static_cast<int>(recall.placement), ",", Exactly(recall.share), ",", recall.rows, ",",
                  Exactly(recall.ema_beta), ",", Exactly(recall.ema_margin), ",", recall.max_rows_per_step, ",",
                  Exactly(recall.staging), ",", recall.follow_rows, ",", ShortlistRows(recall));
  return text;
}

}  // namespace tidepool
