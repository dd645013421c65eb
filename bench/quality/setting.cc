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

constexpr std::pair<absl::string_view, KvPrecision> kPrecisions[] = {{"f16", KvPrecision::kF16},
                                                                     {"int8", KvPrecision::kInt8},
                                                                     {"kivi4", KvPrecision::kKivi4},
                                                                     {"kivi2", KvPrecision::kKivi2}};

absl::StatusOr<KvPrecision> PrecisionOf(const std::string& name) {
  for (const auto& [known, precision] : kPrecisions) {
    if (known == name) return precision;
  }
  return absl::InvalidArgumentError(absl::StrCat("--kv-precision: '", name, "' is not one of f16, int8, kivi4, kivi2"));
}

// MODE, MODE:INDEX or MODE:INDEX:SHORTLIST.
absl::Status SetRecall(absl::string_view text, RecallSpec& recall) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ':');
  TP_ASSIGN_OR_RETURN(recall.mode, ModeOf(parts[0]));
  if (parts.size() > 1) {
    const auto* known = std::find_if(std::begin(kRecallIndexes), std::end(kRecallIndexes),
                                     [&](const auto& k) { return k.first == parts[1]; });
    if (known == std::end(kRecallIndexes)) {
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

// NAME=VALUE.
absl::Status SetOption(const std::string& option, RecallSpec& recall) {
  const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(option, absl::MaxSplits('=', 1));
  if (option == "trigger=cosine") return recall.trigger = RecallTrigger::kCosine, absl::OkStatus();
  if (option == "scope=layer") return recall.select_scope = SelectScope::kLayer, absl::OkStatus();
  if (option == "scope=filter") return recall.select_scope = SelectScope::kFilter, absl::OkStatus();
  double value = 0;
  if (!absl::SimpleAtod(parts.second, &value)) {
    return absl::InvalidArgumentError(absl::StrCat("--recall-options: '", option, "' is not NAME=NUMBER"));
  }
  const auto whole = static_cast<int>(value);
  if (parts.first == "ema_margin") return recall.ema_margin = value, absl::OkStatus();
  if (parts.first == "max_rows_per_step") return recall.max_rows_per_step = whole, absl::OkStatus();
  if (parts.first == "budget_ms") return recall.budget_ms = whole, absl::OkStatus();
  if (parts.first == "staging") return recall.staging = value, absl::OkStatus();
  if (parts.first == "follow_rows") return recall.follow_rows = whole, absl::OkStatus();
  if (parts.first == "interval") return recall.interval = whole, absl::OkStatus();
  if (parts.first == "turn") return recall.turn = value, absl::OkStatus();
  if (parts.first == "promote_after") return recall.promote_after = whole, absl::OkStatus();
  if (parts.first == "min_share") return recall.min_share = value, absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("--recall-options: '", option,
                   "' is none of ema_margin, max_rows_per_step, budget_ms, staging, "
                   "follow_rows, interval, turn, min_share, promote_after, trigger=cosine, scope=layer, scope=filter"));
}

// Of a preset that evicts.
// NAME or NAME:drop.
absl::StatusOr<CompressionSpec> SpecOf(const std::string& preset) {
  const size_t colon = preset.find(':');
  TP_ASSIGN_OR_RETURN(CompressionSpec spec, PresetSpec(preset.substr(0, colon)));
  if (colon == std::string::npos) return spec;
  if (preset.substr(colon + 1) != "drop") {
    return absl::InvalidArgumentError(absl::StrCat("--presets: '", preset, "' is neither NAME nor NAME:drop"));
  }
  spec.fate = Fate::kDrop;
  return spec;
}

absl::StatusOr<Setting> SettingOf(const Grid& grid, const CompressionSpec& spec, double budget,
                                  const std::string& recall) {
  Setting setting;
  setting.spec = spec;
  TP_RETURN_IF_ERROR(SetRecall(recall, setting.spec.recall));
  for (const std::string& option : grid.recall_options) TP_RETURN_IF_ERROR(SetOption(option, setting.spec.recall));
  setting.spec.budget_fraction = budget;
  setting.spec.dense_layers_override = true;  // d2o's dense layers would be beyond the budget
  setting.index_at = grid.index_at;
  setting.spec.recall.placement = grid.index_at == IndexAt::kDevice ? IndexPlacement::kDevice : IndexPlacement::kHost;
  if (grid.recall_rows > 0) {
    setting.spec.recall.share = 0;
    setting.spec.recall.rows = grid.recall_rows;
  }
  TP_RETURN_IF_ERROR(ValidateCompression(setting.spec));
  setting.budget = budget;
  setting.recall = recall;
  return setting;
}

absl::Status AddPreset(const Grid& grid, const std::string& preset, const std::string& precision,
                       std::vector<Setting>& settings) {
  TP_ASSIGN_OR_RETURN(CompressionSpec spec, SpecOf(preset));
  TP_ASSIGN_OR_RETURN(spec.kv_precision, PrecisionOf(precision));
  auto add = [&](Setting setting) {
    setting.preset = precision == "f16" ? preset : absl::StrCat(preset, ":", precision);
    if (absl::StrContains(setting.Name(), grid.only)) settings.push_back(std::move(setting));
  };
  if (preset == "full") {
    if (precision != "f16") add(Setting{.spec = spec});
    return absl::OkStatus();
  }
  for (double budget : grid.budgets) {
    for (const std::string& recall : grid.recalls) {
      TP_ASSIGN_OR_RETURN(Setting setting, SettingOf(grid, spec, budget, recall));
      add(std::move(setting));
    }
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
    for (const std::string& precision : grid.precisions) {
      TP_RETURN_IF_ERROR(AddPreset(grid, preset, precision, settings));
    }
  }
  return settings;
}

}  // namespace tidepool::quality
