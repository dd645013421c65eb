// What a request would find at each of several workers, asked at once.
#ifndef TIDEPOOL_CLIENT_ESTIMATES_H_
#define TIDEPOOL_CLIENT_ESTIMATES_H_

#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/generation_client.h"

namespace tidepool::client {

using Estimates = std::vector<absl::StatusOr<v1::EstimateResponse>>;

// `done` is called once with their answers, in order, when the last has come: by a thread of gRPC's, which it must not
// block, or by this one when there are no clients. The clients may go meanwhile.
void AskEstimates(const std::vector<GenerationClient*>& clients, const v1::EstimateRequest& request,
                  absl::Time deadline, std::function<void(Estimates)> done);

}  // namespace tidepool::client

#endif  // TIDEPOOL_CLIENT_ESTIMATES_H_
