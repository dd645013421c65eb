// Every metric that our processes show: the one definition of name, kind, labels and meaning. The table of
// docs/operations.md, the dashboards and the alert rules are checked against it, and a page can hold nothing else.
#ifndef TIDEPOOL_METRICS_CATALOGUE_H_
#define TIDEPOOL_METRICS_CATALOGUE_H_

#include <string>
#include <string_view>

#include "absl/types/span.h"

namespace tidepool {

enum class MetricKind { kCounter, kGauge, kHistogram };

// Which process shows it; `tidepool serve` is both.
enum class MetricSource { kProcess, kWorker, kCache };

struct MetricDefinition {
  std::string_view name;  // base units: _seconds, _bytes, _ratio; counters end in _total
  MetricSource source;
  MetricKind kind;
  std::string_view labels;  // names, separated by commas; few values each
  std::string_view help;
};

// In the order in which they are shown.
absl::Span<const MetricDefinition> MetricCatalogue();
// Null when there is none of that name.
const MetricDefinition* FindMetric(std::string_view name);
// The catalogue as a Markdown table: what docs/operations.md shows.
std::string MetricTable();

}  // namespace tidepool

#endif  // TIDEPOOL_METRICS_CATALOGUE_H_
