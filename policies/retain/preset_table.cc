#include "policies/retain/preset_table.h"

namespace tidepool {
namespace {

struct Stages {
  LayerBudgetRule layer_budget;
  HeadBudgetRule head_budget;
  ScoreRule score;
  Schedule schedule;
  Fate fate;
};

CompressionSpec Named(const char* name, const Stages& stages) {
  CompressionSpec spec;
  spec.preset = name;
  spec.layer_budget = stages.layer_budget;
  spec.head_budget = stages.head_budget;
  spec.score = stages.score;
  spec.schedule = stages.schedule;
  spec.fate = stages.fate;
  return spec;
}

CompressionSpec Full() { return CompressionSpec(); }

CompressionSpec Streaming() {
  return Named("streaming", {LayerBudgetRule::kUniform, HeadBudgetRule::kUniform, ScoreRule::kPosition,
                             Schedule::kPrefillAndStep, Fate::kDrop});
}

CompressionSpec SnapKv() {
  return Named("snapkv", {LayerBudgetRule::kUniform, HeadBudgetRule::kUniform, ScoreRule::kWindow, Schedule::kPrefill,
                          Fate::kDrop});
}

CompressionSpec H2o() {
  return Named("h2o", {LayerBudgetRule::kUniform, HeadBudgetRule::kUniform, ScoreRule::kColumn,
                       Schedule::kPrefillAndStep, Fate::kDrop});
}

CompressionSpec D2o() {
  return Named("d2o", {LayerBudgetRule::kVariance, HeadBudgetRule::kUniform, ScoreRule::kColumn,
                       Schedule::kPrefillAndStep, Fate::kMerge});
}

CompressionSpec PyramidKv() {
  CompressionSpec spec = Named("pyramidkv", {LayerBudgetRule::kPyramid, HeadBudgetRule::kUniform, ScoreRule::kWindow,
                                             Schedule::kPrefill, Fate::kDrop});
  spec.window_tokens = 8;  // its LongBench runs; the other defaults are those of snapkv
  return spec;
}

CompressionSpec AdaSnapKv() {
  return Named("ada-snapkv",
               {LayerBudgetRule::kUniform, HeadBudgetRule::kAda, ScoreRule::kWindow, Schedule::kPrefill, Fate::kDrop});
}

CompressionSpec AdaPyramidKv() {
  return Named("ada-pyramidkv", {LayerBudgetRule::kAdaPyramid, HeadBudgetRule::kAda, ScoreRule::kWindow,
                                 Schedule::kPrefill, Fate::kDrop});
}

CompressionSpec Tova() {
  return Named("tova", {LayerBudgetRule::kUniform, HeadBudgetRule::kLayerSet, ScoreRule::kLastRow,
                        Schedule::kPrefillAndStep, Fate::kDrop});
}

CompressionSpec LightTransfer() {
  CompressionSpec spec = Named("lighttransfer", {LayerBudgetRule::kLazy, HeadBudgetRule::kUniform, ScoreRule::kPosition,
                                                 Schedule::kPrefillAndStep, Fate::kDrop});
  spec.budget_fraction = 1;  // the method's own budget is lazy_share
  return spec;
}

CompressionSpec SimLayerKv() {
  CompressionSpec spec = Named("simlayerkv", {LayerBudgetRule::kLazy, HeadBudgetRule::kUniform, ScoreRule::kPosition,
                                              Schedule::kFirstStep, Fate::kDrop});
  spec.budget_fraction = 1;
  spec.lazy_recent = 1024;
  spec.lazy_last = 1;         // the first new token's query
  spec.lazy_threshold = 0.9;  // for Llama-3; 0.65 for Llama-2, 0.8 for Mistral, 0.85 for Qwen
  return spec;
}

CompressionSpec AhaKv() {
  return Named("ahakv", {LayerBudgetRule::kUniform, HeadBudgetRule::kUniform, ScoreRule::kAha,
                         Schedule::kPrefillAndStep, Fate::kDrop});
}

constexpr Preset kPresets[] = {
    {"full", "keeps everything", Full},
    {"streaming", "StreamingLLM: the first tokens and the last ones (arXiv 2309.17453)", Streaming},
    {"snapkv",
     "SnapKV: what the last prompt queries attend to, decided once at the end of the prompt (arXiv 2404.14469)",
     SnapKv},
    {"h2o", "H2O: heavy hitters by accumulated attention, and the last tokens, at every step (arXiv 2306.14048)", H2o},
    {"d2o", "D2O: layer budgets by attention variance, heavy hitters, similar evicted tokens merged (arXiv 2406.13035)",
     D2o},
    {"pyramidkv", "PyramidKV: SnapKV with more rows in the lower layers than in the upper ones (arXiv 2406.02069)",
     PyramidKv},
    {"ada-snapkv", "Ada-SnapKV: SnapKV whose heads share the rows of a layer by their scores (arXiv 2407.11550)",
     AdaSnapKv},
    {"ada-pyramidkv", "Ada-Pyramid: Ada-KV's heads in PyramidKV's layers (arXiv 2407.11550)", AdaPyramidKv},
    {"tova", "TOVA: what the last token attends to, one set for each layer, at every step (arXiv 2401.06104)", Tova},
    {"lighttransfer",
     "LightTransfer: the layers that look mostly at the first and last tokens keep only those (arXiv 2410.13846v2)",
     LightTransfer},
    {"simlayerkv", "SimLayerKV: LightTransfer's first version, with a threshold (arXiv 2410.13846v1)", SimLayerKv},
    {"ahakv", "AhaKV: recent attention with a length-adaptive softmax, times the size of the values (arXiv 2506.03762)",
     AhaKv},
};

}  // namespace

absl::Span<const Preset> AllPresets() { return kPresets; }

const Preset* FindPreset(std::string_view name) {
  for (const Preset& preset : kPresets) {
    if (preset.name == name) return &preset;
  }
  return nullptr;
}

}  // namespace tidepool
