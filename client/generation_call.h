// One Generate or Chat call that is read response by response, for programs that have many of them at once: no thread
// waits for it. What is not asked for fills gRPC's window; past it the worker keeps it, for fewer, larger messages.
#ifndef TIDEPOOL_CLIENT_GENERATION_CALL_H_
#define TIDEPOOL_CLIENT_GENERATION_CALL_H_

#include "absl/status/statusor.h"
#include "tidepool/v1/generation.pb.h"

namespace tidepool {

class GenerationCall {
 public:
  // Called by threads of gRPC's, one at a time. They must not block.
  class Reader {
   public:
    virtual ~Reader() = default;
    // Every response but the last. The next one comes after Next(), which may be called in here. Never after Cancel()
    // has returned, but for one that has begun.
    virtual void OnResponse(v1::GenerateResponse response) = 0;
    // Once, as the last call. Cancelled after Cancel(); else the last response or the server's error.
    virtual void OnDone(absl::StatusOr<v1::Finished> result) = 0;
  };

  virtual ~GenerationCall() = default;
  // Both from any thread.
  virtual void Next() = 0;
  virtual void Cancel() = 0;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CLIENT_GENERATION_CALL_H_
