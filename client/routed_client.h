// A client of several workers that share a cache service, as if they were one. A session goes to the same worker as
// long as that answers, any other request to the one that is expected to give its first token first. A worker that goes
// is left: a request that has given no tokens is asked elsewhere, and so is a session's turn, which goes on where it
// was. Blocking calls, no gRPC types; thread-safe.
#ifndef TIDEPOOL_CLIENT_ROUTED_CLIENT_H_
#define TIDEPOOL_CLIENT_ROUTED_CLIENT_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/generation_client.h"

namespace tidepool {

class RoutedClient {
 public:
  // addresses: at least one, host:port or unix:PATH. security: null is plain text without a token. Does not connect
  // yet.
  explicit RoutedClient(const std::vector<std::string>& addresses,
                        std::shared_ptr<const ChannelSecurity> security = nullptr);
  ~RoutedClient();

  // As GenerationClient's. Tokens that had come before a worker went are not given twice. Unavailable: nobody answered
  // in several rounds, or the worker went in the middle of an answer without a session. Aborted: the session has other
  // turns than it had when the call began, so the turn may be stored already; or the worker that went on answers
  // otherwise.
  using EventHandler = GenerationClient::EventHandler;
  absl::StatusOr<v1::Finished> Generate(v1::GenerateRequest request, const EventHandler& on_event,
                                        absl::Time deadline = absl::InfiniteFuture());
  absl::StatusOr<v1::Finished> Chat(v1::ChatRequest request, const EventHandler& on_event,
                                    absl::Time deadline = absl::InfiniteFuture());
  // Ends all calls under way, from any thread.
  void Cancel();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CLIENT_ROUTED_CLIENT_H_
