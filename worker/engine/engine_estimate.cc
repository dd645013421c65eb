// What a request would find here, for who chooses among workers.
#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/limits.h"
#include "base/status_macros.h"
#include "worker/engine/engine_loop.h"

namespace tidepool {

void EngineLoop::Estimate(GenerationRequest request, std::function<void(absl::StatusOr<RequestEstimate>)> done) {
  const bool about_request = !request.prompt.empty() || !request.session_id.empty();
  absl::Status refused = about_request ? Validate(request) : absl::OkStatus();
  if (refused.ok()) {
    MutexLock lock(&mutex_);
    if (stop_) {
      refused = absl::UnavailableError("the worker is shutting down");
    } else if (estimates_ >= kMaxQueuedRequests) {
      refused = absl::ResourceExhaustedError(
          absl::StrCat("queue: ", estimates_, " estimates are being made, at most ", kMaxQueuedRequests));
    } else {
      ++estimates_;
    }
  }
  if (!refused.ok()) return done(std::move(refused));
  background_->Run([this, request = std::move(request), done = std::move(done)] {
    absl::StatusOr<RequestEstimate> estimate = EstimateNow(request);
    {
      MutexLock lock(&mutex_);
      --estimates_;
    }
    done(std::move(estimate));
  });
}

absl::StatusOr<RequestEstimate> EngineLoop::EstimateNow(const GenerationRequest& request) {
  RequestEstimate estimate;
  const absl::Time deadline = std::min(request.deadline, absl::Now() + options_.cache_deadline);
  size_t prompt_tokens = request.prompt.size();
  if (!request.session_id.empty()) {
    TP_ASSIGN_OR_RETURN(const auto manifest, manifests_->Get(request.tenant, request.session_id, deadline));
    if (manifest.has_value()) {
      estimate.session_turns = manifest->revision;
      estimate.stored_tokens = static_cast<int64_t>(manifest->token_ids.size());
      if (!request.continuation.empty()) prompt_tokens = request.continuation.size();
    }
  } else if (cache_ != nullptr && request.reuse_prefix) {
    const int32_t most = Compressor::ReusablePrefix(request.compression, static_cast<int32_t>(prompt_tokens));
    // A cache that does not answer has nothing for the request either.
    estimate.stored_tokens = Loader(request.tenant).StoredPrefix(request.prompt, most, deadline).value_or(0);
  }
  estimate.prompt_tokens = estimate.session_turns > 0 ? estimate.stored_tokens : 0;
  estimate.prompt_tokens += static_cast<int64_t>(prompt_tokens);
  MutexLock lock(&mutex_);
  estimate.waiting_tokens = stats_.waiting_tokens;
  estimate.waiting_requests = stats_.waiting_requests;
  for (const std::unique_ptr<Generation>& generation : incoming_) {
    estimate.waiting_tokens += static_cast<int64_t>(generation->request().prompt.size());
    ++estimate.waiting_requests;
  }
  estimate.running_sequences = stats_.running_sequences;
  estimate.prompt_token_seconds = stats_.prompt_token_seconds;
  return estimate;
}

}  // namespace tidepool
