// What of an answer has been passed on, so that it can go on at another worker: a session's turn that is asked again
// begins from its first token, and what is known already is left out. Not thread-safe.
#ifndef TIDEPOOL_CLIENT_ANSWER_SO_FAR_H_
#define TIDEPOOL_CLIENT_ANSWER_SO_FAR_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tidepool/v1/generation.pb.h"

namespace tidepool::client {

class AnswerSoFar {
 public:
  // The answer begins anew, at another worker.
  void Restart() { ids_at_ = text_at_ = 0; }
  // What of the worker's next tokens is new; may be nothing. Aborted when it answers otherwise than the one before it.
  absl::StatusOr<v1::Tokens> New(v1::Tokens tokens);
  bool begun() const { return !ids_.empty(); }

 private:
  std::vector<int32_t> ids_;
  std::string text_;
  size_t ids_at_ = 0, text_at_ = 0;  // where the worker of now is
};

// Whether a call that ended so may be asked again: its worker could not be reached, or went, or was ended. `cancelled`:
// by the caller himself.
bool WorkerHasGone(const absl::Status& status, bool cancelled);

}  // namespace tidepool::client

#endif  // TIDEPOOL_CLIENT_ANSWER_SO_FAR_H_
