#include "policies/retain/compression_spec.h"

#include <algorithm>
#include <charconv>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/status_macros.h"

namespace tidepool {
namespace {

struct Preset {
  const char* name;
  const char* summary;
  CompressionSpec (*make)();
};

CompressionSpec Named(const char* name, LayerBudgetRule layer, ScoreRule score, Schedule schedule, Fate fate) {
  CompressionSpec spec;
  spec.preset = name;
  spec.layer_budget = layer;
  spec.score = score;
  spec.schedule = schedule;
  spec.fate = fate;
  return spec;
}

constexpr Preset kPresets[] = {
    {"full", "keeps everything", [] { return CompressionSpec(); }},
    {"streaming", "StreamingLLM: the first tokens and the last ones (arXiv 2309.17453)",
     [] {
       return Named("streaming", LayerBudgetRule::kUniform, ScoreRule::kPosition, Schedule::kPrefillAndStep,
                    Fate::kDrop);
     }},
    {"snapkv",
     "SnapKV: what the last prompt queries attend to, decided once at the end of the prompt (arXiv 2404.14469)",
     [] { return Named("snapkv", LayerBudgetRule::kUniform, ScoreRule::kWindow, Schedule::kPrefill, Fate::kDrop); }},
    {"h2o", "H2O: heavy hitters by accumulated attention, and the last tokens, at every step (arXiv 2306.14048)",
     [] {
       return Named("h2o", LayerBudgetRule::kUniform, ScoreRule::kColumn, Schedule::kPrefillAndStep, Fate::kDrop);
     }},
    {"d2o", "D2O: layer budgets by attention variance, heavy hitters, similar evicted tokens merged (arXiv 2406.13035)",
     [] {
       return Named("d2o", LayerBudgetRule::kVariance, ScoreRule::kColumn, Schedule::kPrefillAndStep, Fate::kMerge);
     }},
};

const Preset* Find(std::string_view name) {
  for (const Preset& preset : kPresets) {
    if (preset.name == name) return &preset;
  }
  return nullptr;
}

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

absl::Status ValidateRecall(const CompressionSpec& spec) {
  const RecallSpec& recall = spec.recall;
  TP_RETURN_IF_ERROR(InEnum("recall.mode", recall.mode, RecallMode::kSync));
  TP_RETURN_IF_ERROR(InEnum("recall.index", recall.index, RecallIndex::kK4));
  TP_RETURN_IF_ERROR(InEnum("recall.placement", recall.placement, IndexPlacement::kHost));
  TP_RETURN_IF_ERROR(InEnum("recall.on_loss", recall.on_loss, OnRecallLoss::kFail));
  if (recall.mode == RecallMode::kOff) return absl::OkStatus();
  if (spec.preset == "full") return Bad("recall.mode: preset full evicts nothing that could be recalled");
  TP_RETURN_IF_ERROR(InRange("recall.rows", recall.rows, 0, 1 << 20));
  TP_RETURN_IF_ERROR(InRange("recall.share", recall.share, 0.0, 0.75));
  if (recall.share == 0 && recall.rows == 0) {
    return Bad("recall.share: 0 leaves no recall slots unless recall.rows is set");
  }
  TP_RETURN_IF_ERROR(InRange("recall.ema_beta", recall.ema_beta, 0.0, 1.0));
  TP_RETURN_IF_ERROR(InRange("recall.ema_margin", recall.ema_margin, 1.0, 100.0));
  TP_RETURN_IF_ERROR(InRange("recall.max_rows_per_step", recall.max_rows_per_step, 0, 1 << 20));
  TP_RETURN_IF_ERROR(InRange("recall.budget_ms", recall.budget_ms, 1, 60'000));
  return absl::OkStatus();
}

}  // namespace

std::vector<std::string_view> PresetNames() {
  std::vector<std::string_view> names;
  for (const Preset& preset : kPresets) names.push_back(preset.name);
  return names;
}

absl::StatusOr<CompressionSpec> PresetSpec(std::string_view name) {
  if (const Preset* preset = Find(name); preset != nullptr) return preset->make();
  std::string known;
  for (const Preset& preset : kPresets) absl::StrAppend(&known, known.empty() ? "" : ", ", preset.name);
  return absl::NotFoundError(
      absl::StrCat("compression.preset: '", std::string(name), "' is not known; there are ", known));
}

std::string_view PresetSummary(std::string_view name) {
  const Preset* preset = Find(name);
  return preset != nullptr ? preset->summary : "";
}

absl::Status ValidateCompression(const CompressionSpec& spec) {
  TP_ASSIGN_OR_RETURN(const CompressionSpec base, PresetSpec(spec.preset));
  if (spec.layer_budget != base.layer_budget || spec.head_budget != base.head_budget || spec.score != base.score ||
      spec.schedule != base.schedule || spec.fate != base.fate) {
    return Bad(absl::StrCat("preset: the stages of '", spec.preset, "' are fixed"));
  }
  TP_RETURN_IF_ERROR(InRange("budget_tokens", spec.budget_tokens, 0, 1 << 24));
  if (spec.preset != "full" && spec.budget_tokens == 0) {
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
  TP_RETURN_IF_ERROR(
      InRange("dense_layers: count", static_cast<int64_t>(spec.dense_layers.size()), int64_t{0}, int64_t{kMaxLayers}));
  for (int layer : spec.dense_layers) TP_RETURN_IF_ERROR(InRange("dense_layers", layer, 0, kMaxLayers - 1));
  TP_RETURN_IF_ERROR(ValidateRecall(spec));
  // What is left to the policy must hold what it never gives up (SnapKV's code asserts capacity > window).
  const double share = spec.recall.mode == RecallMode::kOff ? 0.0 : spec.recall.share;
  if (spec.budget_tokens > 0 && spec.preset != "full") {
    const int kept = spec.budget_tokens - static_cast<int>(spec.budget_tokens * share);
    const int least = spec.score == ScoreRule::kWindow ? spec.window_tokens + 1 : spec.sink_tokens + 1;
    if (kept < least) {
      return Bad(absl::StrCat("budget_tokens: ", spec.budget_tokens, " leaves ", kept, " kept rows, preset ",
                              spec.preset, " needs at least ", least,
                              spec.score == ScoreRule::kWindow ? " (window_tokens + 1)" : " (sink_tokens + 1)"));
    }
  }
  return absl::OkStatus();
}

std::string CompressionFingerprint(const CompressionSpec& spec) {
  if (spec.preset == "full") return "full";
  std::vector<int> dense = spec.dense_layers;  // a set: order and repetition say nothing
  std::sort(dense.begin(), dense.end());
  dense.erase(std::unique(dense.begin(), dense.end()), dense.end());
  std::string text = spec.budget_tokens > 0 ? absl::StrCat(spec.preset, ":t", spec.budget_tokens)
                                            : absl::StrCat(spec.preset, ":f", Exactly(spec.budget_fraction));
  absl::StrAppend(&text, ":s", spec.sink_tokens, ":w", spec.window_tokens, ":k", spec.pool_kernel, ":p",
                  static_cast<int>(spec.pooling), ":g", static_cast<int>(spec.group_reduce), ":r",
                  Exactly(spec.recent_share), ":a", Exactly(spec.merge_ema_alpha), ":b", Exactly(spec.merge_ema_beta),
                  ":d", absl::StrJoin(dense, ","), spec.dense_layers_override ? "!" : "");
  const RecallSpec& recall = spec.recall;
  if (recall.mode == RecallMode::kOff) return text;
  absl::StrAppend(&text, ":m", static_cast<int>(recall.mode), ",", static_cast<int>(recall.index), ",",
                  static_cast<int>(recall.placement), ",", Exactly(recall.share), ",", recall.rows, ",",
                  Exactly(recall.ema_beta), ",", Exactly(recall.ema_margin), ",", recall.max_rows_per_step);
  return text;
}

}  // namespace tidepool
