#include "bench/quality/setting.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace tidepool::quality {
namespace {

absl::StatusOr<RecallMode> ModeOf(const std::string& recall) {
  if (recall == "off") return RecallMode::kOff;
  if (recall == "sync") return RecallMode::kSync;
  if (recall == "async") return RecallMode::kAsync;
  return absl::InvalidArgumentError(absl::StrCat("--recall: '", recall, "' is not one of off, sync, async"));
}

}  // namespace

std::string Setting::Name() const { return preset == "full" ? preset : absl::StrCat(preset, " ", budget, " ", recall); }

absl::StatusOr<std::vector<Setting>> Settings(const Grid& grid) {
  std::vector<std::string> presets = grid.presets;
  if (presets.empty()) {
    for (std::string_view name : PresetNames()) {
      if (name != "full") presets.emplace_back(name);
    }
  }
  std::vector<Setting> settings(1);
  for (const std::string& preset : presets) {
    if (preset == "full") continue;
    for (double budget : grid.budgets) {
      for (const std::string& recall : grid.recalls) {
        Setting setting;
        TP_ASSIGN_OR_RETURN(setting.spec, PresetSpec(preset));
        TP_ASSIGN_OR_RETURN(setting.spec.recall.mode, ModeOf(recall));
        setting.spec.budget_fraction = budget;
        setting.spec.dense_layers_override = true;  // d2o's dense layers would be beyond the budget
        setting.spec.recall.placement = grid.host_index ? IndexPlacement::kHost : IndexPlacement::kDevice;
        if (grid.recall_rows > 0) {
          setting.spec.recall.share = 0;
          setting.spec.recall.rows = grid.recall_rows;
        }
        TP_RETURN_IF_ERROR(ValidateCompression(setting.spec));
        setting.preset = preset;
        setting.budget = budget;
        setting.recall = recall;
        if (absl::StrContains(setting.Name(), grid.only)) settings.push_back(setting);
      }
    }
  }
  return settings;
}

}  // namespace tidepool::quality
