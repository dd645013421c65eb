// How far a next-token distribution is from another, when only the best tokens of both are known.
#ifndef TIDEPOOL_BENCH_QUALITY_DIVERGENCE_H_
#define TIDEPOOL_BENCH_QUALITY_DIVERGENCE_H_

#include <cstdint>
#include <vector>

#include "worker/engine/engine.h"

namespace tidepool::quality {

// A lower bound of KL(full || other) in nats: the divergence of both distributions over the tokens that are in both
// `top` lists, and one bucket for all the others (merging outcomes never raises a divergence). At least 0.
double KlLowerBound(const TokenLogprob& full, const TokenLogprob& other);

// Of two runs over the same tokens: the positions at which both rank the same token first.
struct Agreement {
  int same = 0;
  int before_first_difference = 0;  // tokens of a greedy run of one that a greedy run of the other repeats
};
// `tokens`: what a greedy run chose. `other`: another run that was fed them.
Agreement Agree(const std::vector<int32_t>& tokens, const std::vector<TokenLogprob>& other);

}  // namespace tidepool::quality

#endif  // TIDEPOOL_BENCH_QUALITY_DIVERGENCE_H_
