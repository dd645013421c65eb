#include "policies/retain/budget_split.h"

#include <algorithm>
#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "policies/retain/layer_budget.h"

namespace tidepool {
namespace {

constexpr double kMostRows = 1 << 30;

// Rows of each (layer, kv head). The small term undoes the rounding of a product that is a whole number.
int32_t BudgetRows(const CompressionSpec& spec, const DeviceShape& shape, int64_t tokens) {
  if (spec.budget_tokens > 0) return spec.budget_tokens;
  if (spec.budget_bytes > 0) {
    const double rows = static_cast<double>(spec.budget_bytes) / (static_cast<double>(shape.heads()) * shape.row_bytes);
    return static_cast<int32_t>(std::min(std::floor(rows + 1e-9), kMostRows));
  }
  const double rows = spec.budget_fraction * (shape.full_row_bytes / shape.row_bytes) * static_cast<double>(tokens);
  return static_cast<int32_t>(std::min(std::ceil(rows - 1e-9), kMostRows));
}

int DenseLayers(const CompressionSpec& spec, int layers) {
  int dense = 0;
  for (int layer = 0; layer < layers; ++layer) dense += IsDenseLayer(spec, layer, layers) ? 1 : 0;
  return dense;
}

const char* BudgetField(const CompressionSpec& spec) {
  if (spec.budget_bytes > 0) return "budget_bytes";
  return spec.budget_tokens > 0 ? "budget_tokens" : "budget_fraction";
}

}  // namespace

BudgetSplit SplitBudget(const CompressionSpec& spec, const DeviceShape& shape, int64_t tokens) {
  BudgetSplit split;
  if (spec.schedule == Schedule::kNever) {
    split.budget = split.kept = static_cast<int32_t>(tokens);
    return split;
  }
  split.budget = BudgetRows(spec, shape, tokens);
  const double index_bytes = shape.index_fixed_bytes + shape.index_bytes_per_token * static_cast<double>(tokens);
  split.index = static_cast<int32_t>(
      std::min(std::ceil(index_bytes / (static_cast<double>(shape.heads()) * shape.row_bytes) - 1e-9), kMostRows));
  const int32_t rows = split.budget - split.index;
  if (spec.recall.mode != RecallMode::kOff) {
    const int32_t wanted =
        spec.recall.rows > 0 ? spec.recall.rows : static_cast<int32_t>(std::max(rows, 0) * spec.recall.share);
    split.recall = std::max(1, std::min(wanted, rows - LeastKeptRows(spec) - 1));
  }
  split.kept = rows - split.recall;
  return split;
}

int64_t BudgetBytes(const CompressionSpec& spec, const DeviceShape& shape, int64_t tokens) {
  if (spec.schedule == Schedule::kNever) return 0;
  if (spec.budget_bytes > 0) return spec.budget_bytes;
  const auto heads = static_cast<double>(shape.heads());
  if (spec.budget_tokens > 0) return static_cast<int64_t>(spec.budget_tokens * heads * shape.row_bytes);
  return static_cast<int64_t>(spec.budget_fraction * static_cast<double>(tokens) * heads * shape.full_row_bytes);
}

absl::Status CheckBudget(const CompressionSpec& spec, const DeviceShape& shape, int64_t tokens) {
  const bool held = spec.decode_budget == DecodeBudget::kHeld || spec.prefill == PrefillMode::kChunked;
  if (spec.schedule == Schedule::kNever || !held) return absl::OkStatus();
  const BudgetSplit split = SplitBudget(spec, shape, tokens);
  const int32_t rows = split.budget - split.index;
  const int least = LeastKeptRows(spec) + 1;
  const auto refuse = [&](auto&&... why) {
    return absl::InvalidArgumentError(absl::StrCat("compression.", BudgetField(spec), ": gives ", split.budget,
                                                   " rows for each layer and kv head at ", tokens, " tokens; ",
                                                   why...));
  };
  if (split.index > 0 && rows < least) {
    return refuse("the recall index on the device takes ", split.index,
                  " of them (recall.placement host keeps it off)");
  }
  if (spec.budget_bytes > 0 && rows < least) {
    return refuse("preset ", spec.preset, " keeps at least ", LeastKeptRows(spec), " and the row of a step");
  }
  if (spec.recall.mode != RecallMode::kOff && spec.recall.rows > split.recall && tokens > rows) {
    return refuse("recall.rows: ", spec.recall.rows, " of them would leave ", rows - spec.recall.rows, ", preset ",
                  spec.preset, " keeps at least ", least);
  }
  // Layers that keep every token are paid for by the others. A fraction that holds long sequences is not refused for
  // short ones.
  const int64_t dense = DenseLayers(spec, shape.layers);
  if (dense == 0 || split.kept >= tokens) return absl::OkStatus();
  const int64_t at = spec.budget_bytes == 0 && spec.budget_tokens == 0 ? std::max<int64_t>(tokens, 1 << 20) : tokens;
  const int64_t others = (shape.layers - dense) * least;
  if (dense * at + others > int64_t{SplitBudget(spec, shape, at).kept} * shape.layers) {
    return refuse("dense_layers: ", dense, " of ", shape.layers,
                  " layers are never compressed, which leaves too little for the others (dense_layers_override for "
                  "d2o's own, or decode_budget published)");
  }
  return absl::OkStatus();
}

}  // namespace tidepool
