// How many prompt tokens a step takes beside sequences that are decoding, so that these keep their pace: by what steps
// have taken so far. Results do not depend on it (chunked prefill is exact), only when they come.
#ifndef TIDEPOOL_WORKER_ENGINE_STEP_PACE_H_
#define TIDEPOOL_WORKER_ENGINE_STEP_PACE_H_

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"

namespace tidepool {

// Prompts share what a step has room for: how many tokens each takes at most, of `left` in order of arrival. Equal
// shares of at most eight prompts: a short one does not wait for a long one, and what came together is answered
// together, all of it for one pass over the weights. Those that have nearly as much left as others let these catch up:
// the first to be answered would slow the rest of the others to the pace of its answer. No share is so few tokens that
// a pass over a prompt's rows is not worth it.
std::vector<int32_t> PromptShares(int32_t room, absl::Span<const int32_t> left);

class StepPace {
 public:
  // pace: a step with prompt tokens and decoding sequences shall take at most so many times as long as one without
  // prompt tokens, on average and where a few tokens allow it; 0: whatever it takes. most_tokens: of prompts in a step.
  StepPace(double pace, int most_tokens) : pace_(pace), most_tokens_(most_tokens) {}

  // There was nothing to do. What comes now may be the first of several: its first step is short, so that it does not
  // get far ahead of the others, whose rest would then be read at the pace of its answer.
  void Idle() { idle_ = true; }
  // For a step in which `decoding` sequences decode.
  int PromptTokens(int decoding) const;
  // What a prompt token takes; zero: not seen yet.
  absl::Duration prompt_token() const { return absl::Seconds(prompt_token_); }
  // Returns what a prompt token took in this step; zero: it does not say.
  absl::Duration Observe(int decoding, int prompt_tokens, absl::Duration took);

 private:
  const double pace_;
  const int most_tokens_;
  bool idle_ = false;
  // Seconds, running averages; 0: not seen yet.
  double decode_step_ = 0;   // without prompt tokens, as long as nothing else slows it
  double prompt_token_ = 0;  // of all prompts
  double beside_token_ = 0;  // beside decoding sequences: of small pieces, each token takes longer
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_ENGINE_STEP_PACE_H_
