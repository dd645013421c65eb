// A client of a worker, for programs and for the CLI. Blocking calls; no gRPC types.
#ifndef TIDEPOOL_CLIENT_GENERATION_CLIENT_H_
#define TIDEPOOL_CLIENT_GENERATION_CLIENT_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/generation_call.h"
#include "tidepool/v1/generation.pb.h"

namespace tidepool {

class ChannelSecurity;  // security/rpc/channel_security.h

class GenerationClient {
 public:
  // host:port or unix:PATH. security: null is plain text without a token. Does not connect yet.
  explicit GenerationClient(const std::string& address, std::shared_ptr<const ChannelSecurity> security = nullptr);
  ~GenerationClient();

  // `on_event` sees every response but the last. Returns the last one. Cancelled after Cancel; else the server's error.
  using EventHandler = std::function<void(const v1::GenerateResponse&)>;
  absl::StatusOr<v1::Finished> Generate(const v1::GenerateRequest& request, const EventHandler& on_event,
                                        absl::Time deadline = absl::InfiniteFuture());
  absl::StatusOr<v1::Finished> Chat(const v1::ChatRequest& request, const EventHandler& on_event,
                                    absl::Time deadline = absl::InfiniteFuture());
  // Ends the call under way, from any thread or a signal-waiting one. Nothing when there is none.
  void Cancel();

  // The same calls without a thread that waits (generation_call.h), which may outlive this client. `reader` is held
  // until its OnDone has returned. Text must be UTF-8 (utf8.h). traceparent: a header of W3C Trace Context, the trace
  // that the call belongs to; empty: none.
  std::shared_ptr<GenerationCall> StartGenerate(v1::GenerateRequest request,
                                                std::shared_ptr<GenerationCall::Reader> reader,
                                                absl::Time deadline = absl::InfiniteFuture(),
                                                const std::string& traceparent = "");
  std::shared_ptr<GenerationCall> StartChat(v1::ChatRequest request, std::shared_ptr<GenerationCall::Reader> reader,
                                            absl::Time deadline = absl::InfiniteFuture(),
                                            const std::string& traceparent = "");

  // `done` is called once, by a thread of gRPC's, which it must not block.
  void StartEstimate(v1::EstimateRequest request, std::function<void(absl::StatusOr<v1::EstimateResponse>)> done,
                     absl::Time deadline);

  absl::StatusOr<v1::ScoreResponse> Score(const v1::ScoreRequest& request,
                                          absl::Time deadline = absl::InfiniteFuture());
  absl::StatusOr<v1::DetokenizeResponse> Detokenize(const v1::DetokenizeRequest& request);
  absl::StatusOr<v1::GetModelResponse> GetModel();
  absl::StatusOr<v1::GetModelResponse> GetModel(absl::Time deadline);
  absl::StatusOr<v1::ListPoliciesResponse> ListPolicies();
  absl::StatusOr<v1::GetWorkerStatsResponse> GetWorkerStats();
  absl::StatusOr<v1::ListBlockKeysResponse> ListBlockKeys(const v1::ListBlockKeysRequest& request);
  // The worker forgets the session, after its turn under way. OK when there is none.
  absl::Status EndSession(const std::string& session_id);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CLIENT_GENERATION_CLIENT_H_
