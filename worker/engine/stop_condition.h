// Decides for each generated token whether it is the last, and what of its text may be shown. One per request.
//
//   StopCondition stop(params, tokenizer.end_of_generation());
//   auto verdict = stop.Accept(token, tokenizer.Piece(token));   // until verdict.reason != StopReason::kNone
//   std::string rest = stop.Finish();                            // only when the generation ends for another reason
#ifndef TIDEPOOL_WORKER_ENGINE_STOP_CONDITION_H_
#define TIDEPOOL_WORKER_ENGINE_STOP_CONDITION_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/types/span.h"
#include "worker/engine/sampling_params.h"
#include "worker/engine/text_stream.h"

namespace tidepool {

enum class StopReason {
  kNone,    // go on
  kToken,   // an end-of-generation token or a stop id; its own text is not shown
  kString,  // a stop string; the text ends before it
  kLength,  // max_tokens
};

class StopCondition {
 public:
  struct Verdict {
    std::string text;  // valid UTF-8 that became certain; everything when reason is not kNone
    StopReason reason = StopReason::kNone;
    std::string stop_string;  // which one, with kString
  };

  // params: passed ValidateStop. end_of_generation: Tokenizer::end_of_generation, left out with ignore_eos.
  StopCondition(const StopParams& params, absl::Span<const int32_t> end_of_generation);

  // The next generated token and its bytes. The first min_tokens tokens end nothing, neither as ids nor by the stop
  // strings that they complete. A token that meets several reasons has the first of: kToken, kString, kLength.
  Verdict Accept(int32_t token, std::string_view piece);
  // The text still held back (cancelled, deadline); empty after a verdict that ended the generation.
  std::string Finish() { return text_.Finish(); }

  int generated_tokens() const { return generated_tokens_; }
  // max_tokens is 0: nothing is to be generated.
  bool exhausted() const { return generated_tokens_ >= max_tokens_; }

 private:
  int max_tokens_, min_tokens_;
  std::vector<int32_t> final_tokens_;  // sorted
  std::vector<std::string> strings_;
  TextStream text_;
  int generated_tokens_ = 0;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_ENGINE_STOP_CONDITION_H_
