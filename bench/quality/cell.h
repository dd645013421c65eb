// One measured cell: a setting, a suite, a length; what came out and what it cost.
#ifndef TIDEPOOL_BENCH_QUALITY_CELL_H_
#define TIDEPOOL_BENCH_QUALITY_CELL_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "bench/quality/setting.h"
#include "worker/engine/engine.h"

namespace tidepool::quality {

// What the requests of a cell held and moved.
struct Cost {
  double resident = 0;  // keys and values on the device / those of the full cache: the most at the end of a request
  double index = 0;     // bytes of the recall index / bytes of the full cache, at the same moment
  bool index_on_device = false;
  int64_t staged_bytes = 0;  // rows ready in host memory, the most at the end of a request
  int64_t recalled_rows = 0, late_rows = 0, lost_rows = 0;
  int64_t steps = 0;  // passes of one token after the compression
  bool degraded = false;

  // turn_tokens: of the request's prompt.
  void Add(const GenerationUsage& usage, int64_t turn_tokens);
  double RowsPerStep() const { return steps > 0 ? static_cast<double>(recalled_rows) / static_cast<double>(steps) : 0; }
};

struct Cell {
  Setting setting;
  std::string suite;  // "lookup", "text", ...
  int length = 0;     // tokens of the context, as asked for
  std::vector<std::pair<std::string, double>> metrics;
  // What a metric is the mean of, one value for each question (nats per token) or text (loss): to compare cells
  // question by question. Empty for the lookup model.
  std::vector<double> items;
  Cost cost;
  double seconds = 0;
};

// Of the mean of `values`, from their sample variance; 0 for fewer than two.
double StandardError(absl::Span<const double> values);

}  // namespace tidepool::quality

#endif  // TIDEPOOL_BENCH_QUALITY_CELL_H_
