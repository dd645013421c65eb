#include "metrics/metrics_server.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/listen_address.h"
#include "base/status_macros.h"
#include "metrics/page_server.h"

namespace tidepool {

absl::Status CheckMetricsAddress(const std::string& address, bool elsewhere) {
  if (address.empty()) return absl::OkStatus();
  if (address.rfind("unix:", 0) == 0 || !CheckListenAddress(address, /*elsewhere=*/true).ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("metrics_address: '", address, "' is not host:port with a port of 0 to 65535"));
  }
  if (CheckListenAddress(address, elsewhere).ok()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("metrics_address: '", address,
                                                 "' is not a loopback address, and whoever reaches it may read the "
                                                 "metrics: give --metrics-insecure, or --insecure"));
}

MetricsServer::MetricsServer(std::unique_ptr<PageServer> server) : server_(std::move(server)) {}
MetricsServer::~MetricsServer() = default;

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(const std::string& address,
                                                                    std::vector<MetricsSource> sources) {
  TP_RETURN_IF_ERROR(CheckMetricsAddress(address, /*elsewhere=*/true));
  if (address.empty()) return absl::InvalidArgumentError("metrics_address: is empty");
  const auto text = [sources = std::move(sources)] {
    MetricsPage page;
    for (const MetricsSource& source : sources) source(page);
    return page.Text();
  };
  absl::StatusOr<std::unique_ptr<PageServer>> server =
      PageServer::Start(address, {{"/metrics", {"text/plain; version=0.0.4; charset=utf-8", text}}});
  if (!server.ok()) {
    return absl::Status(server.status().code(), absl::StrCat("metrics_address: ", server.status().message()));
  }
  return std::unique_ptr<MetricsServer>(new MetricsServer(*std::move(server)));
}

const std::string& MetricsServer::address() const { return server_->address(); }

}  // namespace tidepool
