// How the next token is chosen and when to stop. Defaults are greedy decoding.
#ifndef TIDEPOOL_WORKER_ENGINE_SAMPLING_PARAMS_H_
#define TIDEPOOL_WORKER_ENGINE_SAMPLING_PARAMS_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace tidepool {

// Order of application: logit bias, repetition, presence and frequency penalties, temperature, top_k, top_p, min_p,
// draw.
struct SamplingParams {
  float temperature = 0;  // 0: greedy; else 0 < t <= 10
  int top_k = 0;          // 0: all
  float top_p = 1;        // 0 < p <= 1: smallest set whose probability reaches p
  float min_p = 0;        // 0 <= p < 1: drop tokens below p times the best
  // 0 < r <= 10; the logits of tokens seen (in the prompt too) are divided by it (multiplied if < 0).
  float repetition_penalty = 1;
  float presence_penalty = 0;                         // -2 to 2, once per generated token value
  float frequency_penalty = 0;                        // -2 to 2, per occurrence among the generated
  uint64_t seed = 0;                                  // equal seeds and inputs give equal draws
  std::vector<std::pair<int32_t, float>> logit_bias;  // added to the logit, -100 to 100
};

struct StopParams {
  int max_tokens = 128;              // >= 0; 0: only the prompt is processed
  int min_tokens = 0;                // stop ids and strings count only after so many
  std::vector<std::string> strings;  // the text ends before the first match, also when it spans tokens
  std::vector<int32_t> token_ids;
  bool ignore_eos = false;
};

// InvalidArgument naming the field, its value and the allowed range.
absl::Status ValidateSampling(const SamplingParams& params, int vocabulary);
absl::Status ValidateStop(const StopParams& params, int vocabulary);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_ENGINE_SAMPLING_PARAMS_H_
