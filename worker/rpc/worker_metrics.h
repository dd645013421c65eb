// What a worker shows to Prometheus: its engine's counters under the names of metrics/catalogue.h.
#ifndef TIDEPOOL_WORKER_RPC_WORKER_METRICS_H_
#define TIDEPOOL_WORKER_RPC_WORKER_METRICS_H_

#include <string>

namespace tidepool {

class Engine;
class MetricsPage;
class SpanExporter;  // tracing/span_exporter.h

// Thread-safe: reads a copy of the engine's stats. tenant: the worker's.
void AddWorkerMetrics(const Engine& engine, const std::string& tenant, MetricsPage& page);
// exporter: null: nothing is traced.
void AddTraceMetrics(const SpanExporter* exporter, MetricsPage& page);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_RPC_WORKER_METRICS_H_
