// What a cache service shows to Prometheus: its counters under the names of metrics/catalogue.h.
#ifndef TIDEPOOL_CACHESERVICE_RPC_CACHE_METRICS_H_
#define TIDEPOOL_CACHESERVICE_RPC_CACHE_METRICS_H_

namespace tidepool {

struct CacheContext;
class MetricsPage;

// Thread-safe: reads counters.
void AddCacheMetrics(const CacheContext& context, MetricsPage& page);

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RPC_CACHE_METRICS_H_
