#include "policies/retain/preset_table.h"

#include "policies/retain/presets/presets.h"

namespace tidepool {

CompressionSpec SpecOf(const char* preset, const Stages& stages) {
  CompressionSpec spec;
  spec.preset = preset;
  spec.layer_budget = stages.layer_budget;
  spec.head_budget = stages.head_budget;
  spec.score = stages.score;
  spec.schedule = stages.schedule;
  spec.fate = stages.fate;
  return spec;
}

absl::Span<const Preset> AllPresets() {
  static const Preset presets[] = {
      {"full", "keeps everything", [] { return CompressionSpec(); }},
      StreamingPreset(),
      SnapKvPreset(),
      H2oPreset(),
      D2oPreset(),
      PyramidKvPreset(),
      AdaSnapKvPreset(),
      AdaPyramidKvPreset(),
      TovaPreset(),
      LightTransferPreset(),
      SimLayerKvPreset(),
      AhaKvPreset(),
      KeyformerPreset(),
      ExpectedAttentionPreset(),
      CormPreset(),
      ElasticPreset(),
      PrefixKvPreset(),
      ZipVlPreset(),
      FastGenPreset(),
      KvZipPreset(),
  };
  return presets;
}

const Preset* FindPreset(std::string_view name) {
  for (const Preset& preset : AllPresets()) {
    if (preset.name == name) return &preset;
  }
  return nullptr;
}

}  // namespace tidepool
