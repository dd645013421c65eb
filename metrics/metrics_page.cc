#include "metrics/metrics_page.h"

#include <prometheus/text_serializer.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <system_error>
#include <vector>

#include "base/check.h"
#include "metrics/catalogue.h"

namespace tidepool {
namespace {

std::string NamesOf(const MetricsPage::Labels& labels) {
  std::string names;
  for (const auto& [name, value] : labels) names.append(names.empty() ? "" : ",").append(name);
  return names;
}

const MetricDefinition* Defined(std::string_view name, const MetricsPage::Labels& labels) {
  const MetricDefinition* metric = FindMetric(name);
  TIDEPOOL_CHECK(metric != nullptr);
  TIDEPOOL_CHECK(metric->labels == NamesOf(labels));
  return metric;
}

}  // namespace

void MetricsPage::Add(std::string_view name, double value, Labels labels) {
  const MetricDefinition* metric = Defined(name, labels);
  TIDEPOOL_CHECK(metric->kind != MetricKind::kHistogram);
  samples_.push_back({metric, std::move(labels), value, Histogram({})});
}

void MetricsPage::Add(std::string_view name, const Histogram& histogram, Labels labels) {
  const MetricDefinition* metric = Defined(name, labels);
  TIDEPOOL_CHECK(metric->kind == MetricKind::kHistogram);
  samples_.push_back({metric, std::move(labels), 0, histogram});
}

std::string MetricsPage::Text() const {
  std::vector<prometheus::MetricFamily> families;
  for (const MetricDefinition& metric : MetricCatalogue()) {
    prometheus::MetricFamily family;
    family.name = std::string(metric.name);
    family.help = std::string(metric.help);
    family.type = metric.kind == MetricKind::kCounter ? prometheus::MetricType::Counter
                  : metric.kind == MetricKind::kGauge ? prometheus::MetricType::Gauge
                                                      : prometheus::MetricType::Histogram;
    for (const Sample& sample : samples_) {
      if (sample.metric != &metric) continue;
      prometheus::ClientMetric& to = family.metric.emplace_back();
      for (const auto& [name, value] : sample.labels) to.label.push_back({std::string(name), value});
      to.counter.value = to.gauge.value = sample.value;
      const Histogram& from = sample.histogram;
      to.histogram.sample_sum = from.sum();
      to.histogram.sample_count = static_cast<uint64_t>(from.count());
      uint64_t cumulative = 0;  // the serializer adds +Inf
      for (size_t i = 0; i < from.bounds().size(); ++i) {
        cumulative += static_cast<uint64_t>(from.bucket(i));
        to.histogram.bucket.push_back({cumulative, from.bounds()[i]});
      }
    }
    if (!family.metric.empty()) families.push_back(std::move(family));
  }
  std::ostringstream out;
  prometheus::TextSerializer().Serialize(out, families);
  return std::move(out).str();
}

void AddProcessMetrics(MetricsPage& page) {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec);
  };
  page.Add("process_cpu_seconds_total", seconds(usage.ru_utime) + seconds(usage.ru_stime));

  int64_t total = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> total >> resident;
  page.Add("process_resident_memory_bytes", static_cast<double>(resident) * static_cast<double>(sysconf(_SC_PAGESIZE)));

  std::error_code ignored;
  std::filesystem::directory_iterator files("/proc/self/fd", ignored);
  page.Add("process_open_fds", static_cast<double>(std::distance(begin(files), end(files))));
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  page.Add("process_max_fds", static_cast<double>(limit.rlim_cur));

  // proc(5): the boot, and since then the start in ticks, the 20th field after the name in brackets.
  double boot = 0;
  for (std::ifstream stat("/proc/stat"); stat;) {
    std::string word;
    stat >> word;
    if (word == "btime") {
      stat >> boot;
      break;
    }
    stat.ignore(1 << 16, '\n');
  }
  std::ifstream stat("/proc/self/stat");
  std::string text(std::istreambuf_iterator<char>(stat), {});
  std::istringstream fields(text.substr(std::min(text.size(), text.rfind(')') + 1)));
  std::string field;
  for (int i = 0; i < 19; ++i) fields >> field;
  double ticks = 0;
  fields >> ticks;
  page.Add("process_start_time_seconds", boot + ticks / static_cast<double>(sysconf(_SC_CLK_TCK)));
}

}  // namespace tidepool
