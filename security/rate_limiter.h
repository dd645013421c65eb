// How much each tenant may ask for in a minute: a bucket of requests and one of generated tokens, that fill evenly and
// hold a minute's worth. Tokens are known only once they are generated, so their bucket may go below zero: the tenant's
// next request waits until it is above again. Thread-safe.
#ifndef TIDEPOOL_SECURITY_RATE_LIMITER_H_
#define TIDEPOOL_SECURITY_RATE_LIMITER_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "security/access_table.h"

namespace tidepool {

// Why a request has to wait.
struct RateRefusal {
  std::string message;         // names the tenant and its limit
  absl::Duration retry_after;  // more than zero: when it is worth another try, if the tenant asks for nothing else
};

class RateLimiter {
 public:
  // limits_of: asked anew each time, so limits may change. Called under the limiter's lock.
  explicit RateLimiter(std::function<RateLimits(std::string_view)> limits_of,
                       std::function<absl::Time()> clock = absl::Now)
      : limits_of_(std::move(limits_of)), clock_(std::move(clock)) {}

  // Counts a request, or says why not.
  std::optional<RateRefusal> Admit(const std::string& tenant);
  void Charge(const std::string& tenant, int64_t generated_tokens);

 private:
  // What is left, as of `filled`.
  struct Bucket {
    double level = 0;
    int64_t rate = 0;  // that it was filled by; 0: new
  };
  struct Tenant {
    absl::Time filled;
    Bucket requests, tokens;
  };
  Tenant& Filled(const std::string& tenant, const RateLimits& limits) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::function<RateLimits(std::string_view)> limits_of_;
  const std::function<absl::Time()> clock_;
  Mutex mutex_;
  absl::flat_hash_map<std::string, Tenant> tenants_ ABSL_GUARDED_BY(mutex_);  // that have limits: named in a file
};

}  // namespace tidepool

#endif  // TIDEPOOL_SECURITY_RATE_LIMITER_H_
