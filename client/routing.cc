#include "client/routing.h"

#include <algorithm>
#include <cstring>
#include <tuple>

#include "base/sha256.h"

namespace tidepool::client {
namespace {

constexpr double kUnknownTokensPerSecond = 1000;

}  // namespace

uint64_t SessionWeight(const std::string& session_id, const std::string& address) {
  const Sha256::Digest digest = Sha256().AddField(session_id).AddField(address).Finish();
  uint64_t weight = 0;
  std::memcpy(&weight, digest.data(), sizeof weight);
  return weight;
}

int FirstTokenFirst(const std::vector<Candidate>& candidates) {
  double fastest = 0;
  for (const Candidate& candidate : candidates) {
    if (candidate.estimate.ok()) fastest = std::max(fastest, candidate.estimate->prompt_tokens_per_second());
  }
  if (fastest <= 0) fastest = kUnknownTokensPerSecond;
  const auto cost = [&](const Candidate& candidate) {
    const v1::EstimateResponse& estimate = *candidate.estimate;
    const int64_t tokens = estimate.waiting_tokens() + estimate.prompt_tokens() - estimate.stored_tokens();
    const double speed = estimate.prompt_tokens_per_second() > 0 ? estimate.prompt_tokens_per_second() : fastest;
    return std::make_tuple(static_cast<double>(tokens) / speed,
                           estimate.running_sequences() + estimate.waiting_requests(), candidate.load);
  };
  int best = -1;
  for (size_t i = 0; i < candidates.size(); ++i) {
    if (!candidates[i].estimate.ok()) continue;
    if (best < 0 || cost(candidates[i]) < cost(candidates[static_cast<size_t>(best)])) best = static_cast<int>(i);
  }
  return best;
}

}  // namespace tidepool::client
