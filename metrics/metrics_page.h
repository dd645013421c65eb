// What a scrape shows: samples of metrics of the catalogue, in its order. Built anew for each scrape by one thread.
#ifndef TIDEPOOL_METRICS_METRICS_PAGE_H_
#define TIDEPOOL_METRICS_METRICS_PAGE_H_

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/histogram.h"

namespace tidepool {

struct MetricDefinition;

class MetricsPage {
 public:
  using Labels = std::vector<std::pair<std::string_view, std::string>>;

  // A counter's or a gauge's value. The name is in the catalogue with exactly these labels, in this order (anything
  // else is a bug), and no two samples are the same but for their value.
  void Add(std::string_view name, double value, Labels labels = {});
  void Add(std::string_view name, const Histogram& histogram, Labels labels = {});

  // In the text format of Prometheus, version 0.0.4.
  std::string Text() const;

 private:
  struct Sample {
    const MetricDefinition* metric;
    Labels labels;
    double value;
    Histogram histogram;
  };
  std::vector<Sample> samples_;
};

// Adds what a part of the process has to show; called from the threads that answer scrapes.
using MetricsSource = std::function<void(MetricsPage&)>;

// Adds the process's own: memory, processor time, files, start.
void AddProcessMetrics(MetricsPage& page);

}  // namespace tidepool

#endif  // TIDEPOOL_METRICS_METRICS_PAGE_H_
