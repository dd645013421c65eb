// What is measured: one row of the report's table, and the grid of all rows.
#ifndef TIDEPOOL_BENCH_QUALITY_SETTING_H_
#define TIDEPOOL_BENCH_QUALITY_SETTING_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "policies/retain/compression_spec.h"

namespace tidepool::quality {

// The indexes of recall, as they are asked for.
inline constexpr std::pair<absl::string_view, RecallIndex> kRecallIndexes[] = {
    {"k4", RecallIndex::kK4},       {"pq16x4", RecallIndex::kPq16x4}, {"pq8x8", RecallIndex::kPq8x8},
    {"exact", RecallIndex::kExact}, {"page8", RecallIndex::kPage8},   {"page16", RecallIndex::kPage16}};

// Where the recall index lies; kFit: on the device where the budget of a context has room for it, else in host memory.
enum class IndexAt { kHost, kDevice, kFit };

struct Setting {
  CompressionSpec spec;
  IndexAt index_at = IndexAt::kHost;
  std::string preset = "full";  // as asked for, and :PRECISION of packed keys and values
  double budget = 1;            // of the full cache's rows
  std::string recall = "off";

  std::string Name() const;
};

struct Grid {
  // NAME, or NAME:drop, which drops what the preset would merge. Empty: every preset that evicts.
  std::vector<std::string> presets;
  std::vector<double> budgets = {0.2, 0.1, 0.05};
  std::vector<std::string> recalls = {"off", "sync", "async"};
  int recall_rows = 0;                      // above 0: so many recall slots beyond the budget, instead of a share of it
  std::vector<std::string> recall_options;  // NAME=VALUE of RecallSpec's numbers
  std::string only;                         // settings whose name holds this text; empty: all
  IndexAt index_at = IndexAt::kHost;
  std::vector<std::string> precisions = {"f16"};  // of keys and values: f16, int8, kivi4, kivi2
};

// The full cache first, then presets x precisions x budgets x recalls. A full cache that is packed has no budget and no
// recall. InvalidArgument or NotFound naming what is wrong.
absl::StatusOr<std::vector<Setting>> Settings(const Grid& grid);

}  // namespace tidepool::quality

#endif  // TIDEPOOL_BENCH_QUALITY_SETTING_H_
