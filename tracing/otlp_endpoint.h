// Where spans go: a collector's OTLP over HTTP.
#ifndef TIDEPOOL_TRACING_OTLP_ENDPOINT_H_
#define TIDEPOOL_TRACING_OTLP_ENDPOINT_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace tidepool {

struct OtlpEndpoint {
  std::string host, port, path;

  // http://HOST[:PORT][/PATH]; without a port 4318, without a path /v1/traces. InvalidArgument.
  static absl::StatusOr<OtlpEndpoint> Parse(const std::string& url);
};

// POSTs JSON and waits for the answer. Unavailable when there is none within `timeout`, or none of 2xx.
absl::Status PostJson(const OtlpEndpoint& endpoint, std::string body, absl::Duration timeout);

}  // namespace tidepool

#endif  // TIDEPOOL_TRACING_OTLP_ENDPOINT_H_
