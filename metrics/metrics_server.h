// Prometheus scrapes of a process: GET /metrics on an address of its own, by a PageServer.
// docs/decisions/0015-metrics.md
#ifndef TIDEPOOL_METRICS_METRICS_SERVER_H_
#define TIDEPOOL_METRICS_METRICS_SERVER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "metrics/metrics_page.h"

namespace tidepool {

class PageServer;  // metrics/page_server.h

// host:port with port 0 to 65535; empty is fine, too: no metrics. Whoever reaches it may read them: `elsewhere` says
// that other machines may. InvalidArgument naming metrics_address and what to give.
absl::Status CheckMetricsAddress(const std::string& address, bool elsewhere);

class MetricsServer {
 public:
  // Port 0: any free one; of any address. What `sources` use outlives the server; its thread calls them.
  // InvalidArgument as CheckMetricsAddress, Unavailable when it cannot listen there.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(const std::string& address,
                                                              std::vector<MetricsSource> sources);
  // Connections are closed as they are.
  ~MetricsServer();

  const std::string& address() const;  // host:port, with the port that was taken

 private:
  explicit MetricsServer(std::unique_ptr<PageServer> server);
  std::unique_ptr<PageServer> server_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_METRICS_METRICS_SERVER_H_
