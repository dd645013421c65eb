// Between the protocol's messages and the engine's types. Unset optional fields keep the engine's defaults; what the
// engine checks is left to it, what only the protocol can get wrong is refused here by field name.
#ifndef TIDEPOOL_WORKER_RPC_CONVERT_H_
#define TIDEPOOL_WORKER_RPC_CONVERT_H_

#include "absl/status/statusor.h"
#include "cacheservice/api/block_cache.h"
#include "tidepool/v1/generation.pb.h"
#include "worker/engine/engine.h"
#include "worker/model/tokenizer.h"

namespace tidepool {

SamplingParams SamplingFrom(const v1::SamplingParams& params);
StopParams StopFrom(const v1::StopParams& params);

// All of a request but deadline; text is tokenised.
absl::StatusOr<GenerationRequest> RequestFrom(const v1::GenerateRequest& request, const Tokenizer& tokenizer);
// Rendered by the model's template; what the messages say cannot make special tokens.
absl::StatusOr<GenerationRequest> RequestFrom(const v1::ChatRequest& request, const Model& model);
absl::StatusOr<GenerationRequest> RequestFrom(const v1::ScoreRequest& request, const Tokenizer& tokenizer);

v1::Usage UsageTo(const GenerationUsage& usage);
void LogprobTo(const TokenLogprob& from, v1::TokenLogprob& to);
v1::CachePodStats CachePodTo(const CachePodStats& pod);
v1::Finished FinishedTo(const GenerationResult& result);
v1::EstimateResponse EstimateTo(const RequestEstimate& estimate);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_RPC_CONVERT_H_
