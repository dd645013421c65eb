#include "bench/quality/setting.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "base/status_macros.h"

namespace tidepool::quality {
namespace {

absl::StatusOr<RecallMode> ModeOf(absl::string_view recall) {
  if (recall == "off") return RecallMode::kOff;
  if (recall == "sync") return RecallMode::kSync;
  if (recall == "async") return RecallMode::kAsync;
  return absl::InvalidArgumentError(absl::StrCat("--recall: '", recall, "' is not one of off, sync, async"));
}

constexpr std::pair<absl::string_view, RecallIndex> kIndexes[] = {
    {"k4", RecallIndex::kK4},       {"pq16x4", RecallIndex::kPq16x4}, {"pq8x8", RecallIndex::kPq8x8},
    {"exact", RecallIndex::kExact}, {"page8", RecallIndex::kPage8},   {"page16", RecallIndex::kPage16}};

// MODE, MODE:INDEX or MODE:INDEX:SHORTLIST.
absl::Status SetRecall(absl::string_view text, RecallSpec& recall) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ':');
  TP_ASSIGN_OR_RETURN(recall.mode, ModeOf(parts[0]));
  if (parts.size() > 1) {
    const auto* known =
        std::find_if(std::begin(kIndexes), std::end(kIndexes), [&](const auto& k) { return k.first == parts[1]; });
    if (known == std::end(kIndexes)) {
      return absl::InvalidArgumentError(absl::StrCat("--recall: '", parts[1], "' is no index"));
    }
    recall.index = known->second;
  }
  if (parts.size() > 3 || (parts.size() == 3 && !absl::SimpleAtoi(parts[2], &recall.shortlist))) {
    return absl::InvalidArgumentError(
        absl::StrCat("--recall: '", text, "' is not MODE, MODE:INDEX or MODE:INDEX:ROWS"));
  }
  return absl::OkStatus();
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
        TP_RETURN_IF_ERROR(SetRecall(recall, setting.spec.recall));
        setting.spec.budget_fraction = budget;
        setting.spec.dense_layers_override = true;  // d2o's dense layers would be beyond the budget
        setting.index_at = grid.index_at;
        setting.spec.recall.placement =
            grid.index_at == IndexAt::kDevice ? IndexPlacement::kDevice : IndexPlacement::kHost;
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
