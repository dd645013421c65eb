// Sampling, stop and session flags of `generate` and `chat`.
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"
#include "client/cli/cli.h"
#include "client/cli/compression_flags.h"

// Sampling. The worker checks the ranges.
ABSL_FLAG(double, temperature, 0, "0: greedy; at most 10");
ABSL_FLAG(int, top_k, 0, "draw from the best so many tokens; 0: all");
ABSL_FLAG(double, top_p, 1, "draw from the smallest set that has this probability: above 0 to 1");
ABSL_FLAG(double, min_p, 0, "drop tokens below this times the best's probability: 0 to below 1");
ABSL_FLAG(double, repetition_penalty, 1, "divides the logits of tokens seen before: above 0 to 10");
ABSL_FLAG(double, presence_penalty, 0, "taken from the logit of a token that was generated: -2 to 2");
ABSL_FLAG(double, frequency_penalty, 0, "taken for each time that it was generated: -2 to 2");
ABSL_FLAG(uint64_t, seed, 0, "equal seeds and inputs give equal answers");
ABSL_FLAG(std::vector<std::string>, logit_bias, {}, "added to logits: TOKEN:BIAS,... with -100 to 100");
ABSL_FLAG(int, logprobs, -1, "with --json, alternatives shown for each token: 0 to 20; -1: no log-probabilities");

// Where the answer ends.
ABSL_FLAG(int, max_tokens, 128, "most tokens to generate; 0: the prompt is processed only");
ABSL_FLAG(int, min_tokens, 0, "stop strings and ids count after so many tokens");
ABSL_FLAG(std::string, stop, "",
          "string that ends the text before it; several as a JSON list: '[\"\\n\\n\", \"END\"]'");
ABSL_FLAG(std::vector<std::string>, stop_token_ids, {}, "tokens that end the text: ID,ID,...");
ABSL_FLAG(bool, ignore_eos, false, "go on past the model's end token");

ABSL_FLAG(std::string, session, "",
          "keeps the context under this name: what is sent is its next turn. Needs a worker with a cache service");

namespace tidepool::cli {
namespace {

absl::Status ReadSampling(v1::SamplingParams& sampling) {
  sampling.set_temperature(static_cast<float>(absl::GetFlag(FLAGS_temperature)));
  sampling.set_top_k(absl::GetFlag(FLAGS_top_k));
  sampling.set_top_p(static_cast<float>(absl::GetFlag(FLAGS_top_p)));
  sampling.set_min_p(static_cast<float>(absl::GetFlag(FLAGS_min_p)));
  sampling.set_repetition_penalty(static_cast<float>(absl::GetFlag(FLAGS_repetition_penalty)));
  sampling.set_presence_penalty(static_cast<float>(absl::GetFlag(FLAGS_presence_penalty)));
  sampling.set_frequency_penalty(static_cast<float>(absl::GetFlag(FLAGS_frequency_penalty)));
  sampling.set_seed(absl::GetFlag(FLAGS_seed));
  for (const std::string& entry : absl::GetFlag(FLAGS_logit_bias)) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(entry, absl::MaxSplits(':', 1));
    int32_t token = 0;
    float bias = 0;
    if (!absl::SimpleAtoi(parts.first, &token) || !absl::SimpleAtof(parts.second, &bias)) {
      return absl::InvalidArgumentError(absl::StrCat("--logit-bias: '", entry, "' is not TOKEN:BIAS"));
    }
    (*sampling.mutable_logit_bias())[token] = bias;
  }
  return absl::OkStatus();
}

absl::Status ReadStop(v1::StopParams& stop) {
  stop.set_max_tokens(absl::GetFlag(FLAGS_max_tokens));
  stop.set_min_tokens(absl::GetFlag(FLAGS_min_tokens));
  stop.set_ignore_eos(absl::GetFlag(FLAGS_ignore_eos));
  for (const std::string& entry : absl::GetFlag(FLAGS_stop_token_ids)) {
    int32_t token = 0;
    if (!absl::SimpleAtoi(entry, &token)) {
      return absl::InvalidArgumentError(absl::StrCat("--stop-token-ids: '", entry, "' is not a token id"));
    }
    stop.add_token_ids(token);
  }
  const std::string text = absl::GetFlag(FLAGS_stop);
  if (text.empty()) return absl::OkStatus();
  if (text[0] != '[') {
    stop.add_strings(text);
    return absl::OkStatus();
  }
  const nlohmann::json list = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  for (const nlohmann::json& entry : list) {
    if (!entry.is_string())
      return absl::InvalidArgumentError(absl::StrCat("--stop: ", text, " holds what is no string"));
    stop.add_strings(entry.get<std::string>());
  }
  if (!list.is_array()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--stop: ", text, " begins like a JSON list and is none (a single '[' is '[\"[\"]')"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadGenerationFlags(GenerationFlags* flags) {
  TP_RETURN_IF_ERROR(ReadSampling(flags->sampling));
  TP_RETURN_IF_ERROR(ReadStop(flags->stop));
  TP_RETURN_IF_ERROR(ReadCompressionFlags(flags->compression));
  flags->logprobs = absl::GetFlag(FLAGS_logprobs);
  if (flags->logprobs < -1 || flags->logprobs > 20) {
    return absl::InvalidArgumentError(absl::StrCat("--logprobs: ", flags->logprobs, " is not in -1 to 20"));
  }
  flags->session = absl::GetFlag(FLAGS_session);
  return absl::OkStatus();
}

}  // namespace tidepool::cli
