#include "bench/quality/report.h"

#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "bench/quality/or_die.h"

namespace tidepool::quality {
namespace {

nlohmann::json ToJson(const Cell& cell) {
  nlohmann::json metrics = nlohmann::json::object();
  for (const auto& [name, value] : cell.metrics) metrics[name] = value;
  const Cost& cost = cell.cost;
  return {{"preset", cell.setting.preset},
          {"budget", cell.setting.budget},
          {"recall", cell.setting.recall},
          {"suite", cell.suite},
          {"length", cell.length},
          {"metrics", metrics},
          {"items", cell.items},
          {"resident", cost.resident},
          {"index", cost.index},
          {"index_on_device", cost.index_on_device},
          {"staged_bytes", cost.staged_bytes},
          {"recalled_rows", cost.recalled_rows},
          {"rows_per_step", cost.RowsPerStep()},
          {"late_rows", cost.late_rows},
          {"lost_rows", cost.lost_rows},
          {"degraded", cost.degraded},
          {"seconds", cell.seconds}};
}

}  // namespace

void Report::Add(const Cell& cell) {
  const Cost& cost = cell.cost;
  std::string metrics;
  for (const auto& [name, value] : cell.metrics) {
    absl::StrAppend(&metrics, metrics.empty() ? "" : ", ", name, " ", absl::SixDigits(value));
  }
  std::printf(
      "%-8s %5d  %-26s %s | resident %.1f %%, index %.1f %% (%s), staged %.2f MiB, %.1f rows a step, %lld late, "
      "%lld lost%s | %.1f s\n",
      cell.suite.c_str(), cell.length, cell.setting.Name().c_str(), metrics.c_str(), 100 * cost.resident,
      100 * cost.index, cost.index_on_device ? "device" : "host", static_cast<double>(cost.staged_bytes) / (1 << 20),
      cost.RowsPerStep(), static_cast<long long>(cost.late_rows), static_cast<long long>(cost.lost_rows),
      cost.degraded ? ", degraded" : "", cell.seconds);
  std::fflush(stdout);
  cells_.push_back(cell);
  if (json_.empty()) return;
  nlohmann::json all = nlohmann::json::array();
  for (const Cell& one : cells_) all.push_back(ToJson(one));
  std::ofstream out(json_, std::ios::trunc);
  out << all.dump(1) << "\n";
  if (!out.flush()) Die("cannot write " + json_);
}

}  // namespace tidepool::quality
