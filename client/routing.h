// Which of several workers a request goes to: a session to the same one each time, the others to whoever is expected to
// give the first token first. Pure; clients/python/tidepool_client/workers.py has the same formulas.
#ifndef TIDEPOOL_CLIENT_ROUTING_H_
#define TIDEPOOL_CLIENT_ROUTING_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "tidepool/v1/generation.pb.h"

namespace tidepool::client {

inline constexpr int kMostAsked = 4;  // workers whose estimates are asked for before a request
// A worker that does not answer so soon is too busy anyway.
inline constexpr absl::Duration kEstimateTime = absl::Seconds(2);

// Highest-random-weight hashing: a session belongs to the worker of the highest weight, whoever asks, and the others'
// sessions stay where they are when one goes.
uint64_t SessionWeight(const std::string& session_id, const std::string& address);

struct Candidate {
  absl::StatusOr<v1::EstimateResponse> estimate;
  int load = 0;  // requests of this client that it has
};

// The index of the one that has the least to compute before the request's first token, by what it computes in a second;
// among equals the least busy. -1: none has answered.
int FirstTokenFirst(const std::vector<Candidate>& candidates);

}  // namespace tidepool::client

#endif  // TIDEPOOL_CLIENT_ROUTING_H_
