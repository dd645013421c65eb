// Sends spans to a collector from a thread of its own. Who has spans hands over how to make them and goes on; when the
// collector does not keep up, traces are dropped and counted. Thread-safe.
#ifndef TIDEPOOL_TRACING_SPAN_EXPORTER_H_
#define TIDEPOOL_TRACING_SPAN_EXPORTER_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "tracing/otlp_endpoint.h"
#include "tracing/span.h"

namespace tidepool {

inline constexpr size_t kMaxQueuedTraces = 1024;

// Since the start. A trace is what one call of Export makes.
struct SpanExporterStats {
  int64_t exported = 0;  // traces that the collector has taken
  int64_t dropped = 0;   // traces that the queue had no room for, or that the collector did not take in three tries
};

class SpanExporter {
 public:
  // resource: attributes of this process, such as service.name.
  SpanExporter(OtlpEndpoint endpoint, std::vector<std::pair<std::string, std::string>> resource);
  // Sends what is queued, in one try that may take two seconds.
  ~SpanExporter();

  // `make` is called by the exporter's thread. Never waits.
  void Export(std::function<std::vector<Span>()> make);
  SpanExporterStats Stats() const;

 private:
  void Work();
  // Up to kMaxBatchTraces of the queue, a moment after the first one came; none: the end.
  std::vector<std::function<std::vector<Span>()>> NextBatch();
  bool Send(const std::string& body);

  const OtlpEndpoint endpoint_;
  const std::vector<std::pair<std::string, std::string>> resource_;
  mutable Mutex mutex_;
  CondVar changed_;
  std::deque<std::function<std::vector<Span>()>> queue_ ABSL_GUARDED_BY(mutex_);
  SpanExporterStats stats_ ABSL_GUARDED_BY(mutex_);
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  bool failing_ = false;  // of the thread: what was logged last
  std::thread thread_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_TRACING_SPAN_EXPORTER_H_
