#include "security/rate_limiter.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace tidepool {
namespace {

constexpr double kSecondsOfABucket = 60;
constexpr double kRounding = 1e-6;  // what many small fillings may lack of a whole unit

// A bucket that holds less than one: when it will hold one.
RateRefusal Refusal(const std::string& tenant, const char* what, double level, int64_t rate) {
  const double seconds = (1 - level) * kSecondsOfABucket / static_cast<double>(rate);
  return {absl::StrCat("rate: tenant ", tenant, " has had its ", rate, " ", what, " of a minute, try again in ",
                       std::ceil(seconds - kRounding), " s"),
          absl::Seconds(seconds)};
}

}  // namespace

RateLimiter::Tenant& RateLimiter::Filled(const std::string& name, const RateLimits& limits) {
  const absl::Time now = clock_();
  const auto [at, added] = tenants_.try_emplace(name, Tenant{.filled = now});
  Tenant& tenant = at->second;
  const double seconds = std::max(0.0, absl::ToDoubleSeconds(now - tenant.filled));
  auto fill = [seconds](Bucket& bucket, int64_t rate) {
    const double full = static_cast<double>(rate);
    bucket.level = bucket.rate == 0 ? full : std::min(full, bucket.level + seconds * full / kSecondsOfABucket);
    bucket.rate = rate;
  };
  fill(tenant.requests, limits.requests);
  fill(tenant.tokens, limits.generated_tokens);
  tenant.filled = now;
  return tenant;
}

std::optional<RateRefusal> RateLimiter::Admit(const std::string& name) {
  MutexLock lock(&mutex_);
  const RateLimits limits = limits_of_(name);
  if (limits == RateLimits()) return std::nullopt;
  Tenant& tenant = Filled(name, limits);
  if (limits.generated_tokens > 0 && tenant.tokens.level < 1 - kRounding) {
    return Refusal(name, "generated tokens", tenant.tokens.level, limits.generated_tokens);
  }
  if (limits.requests > 0) {
    if (tenant.requests.level < 1 - kRounding) {
      return Refusal(name, "requests", tenant.requests.level, limits.requests);
    }
    tenant.requests.level -= 1;
  }
  return std::nullopt;
}

void RateLimiter::Charge(const std::string& name, int64_t generated_tokens) {
  MutexLock lock(&mutex_);
  const RateLimits limits = limits_of_(name);
  if (limits.generated_tokens > 0) Filled(name, limits).tokens.level -= static_cast<double>(generated_tokens);
}

}  // namespace tidepool
