#include "bench/quality/divergence.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace tidepool::quality {
namespace {

// What p loses to q in one bucket. The rest buckets are differences from 1, so neither may reach 0.
double Term(double p, double q) {
  constexpr double kLeast = 1e-9;
  return p > kLeast ? p * std::log(p / std::max(q, kLeast)) : 0.0;
}

}  // namespace

double KlLowerBound(const TokenLogprob& full, const TokenLogprob& other) {
  double sum = 0, rest_p = 1, rest_q = 1;
  for (const auto& entry : full.top) {
    const auto match =
        std::find_if(other.top.begin(), other.top.end(), [&](const auto& o) { return o.first == entry.first; });
    if (match == other.top.end()) continue;
    const double p = std::exp(double{entry.second}), q = std::exp(double{match->second});
    sum += Term(p, q);
    rest_p -= p;
    rest_q -= q;
  }
  return std::max(0.0, sum + Term(rest_p, rest_q));
}

Agreement Agree(const std::vector<int32_t>& tokens, const std::vector<TokenLogprob>& other) {
  TIDEPOOL_CHECK(tokens.size() == other.size());
  Agreement agreement;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const bool same = !other[i].top.empty() && other[i].top[0].first == tokens[i];
    if (same && agreement.before_first_difference == static_cast<int>(i)) ++agreement.before_first_difference;
    agreement.same += same;
  }
  return agreement;
}

}  // namespace tidepool::quality
