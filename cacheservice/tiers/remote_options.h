// The remote tier's settings: where the engine is, who we are to it, and how long we wait.
#ifndef TIDEPOOL_CACHESERVICE_TIERS_REMOTE_OPTIONS_H_
#define TIDEPOOL_CACHESERVICE_TIERS_REMOTE_OPTIONS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/circuit_breaker.h"

namespace tidepool {

struct RemoteTierOptions {
  std::string url;                                        // cacheservice/resp/server_url.h; empty: no remote tier
  std::string password;                                   // takes the place of the url's when not empty
  bool insecure = false;                                  // allow plain text to other than loopback addresses
  std::string ca_file, cert_file, key_file, server_name;  // cacheservice/resp/tls_context.h; for rediss:// only
  uint32_t piece_bytes = 512 << 10;                       // larger values are stored in pieces; 64 KiB to 1 MiB
  absl::Duration ttl = absl::ZeroDuration();              // of what is stored; 0: for ever, else 1 s to 10 years
  absl::Duration timeout = absl::Seconds(1);  // of one batch of reads or writes, connecting included; 1 ms to 60 s
  int readers = 4;                            // batches read at a time, each over connections of its own; 1 to 64
  CircuitBreakerOptions breaker;

  bool enabled() const { return !url.empty(); }
  // InvalidArgument naming the field; OK when there is no remote tier.
  absl::Status Validate() const;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_REMOTE_OPTIONS_H_
