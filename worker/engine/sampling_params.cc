#include "worker/engine/sampling_params.h"

#include <algorithm>
#include <cstddef>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/limits.h"
#include "base/status_macros.h"
#include "worker/engine/text_stream.h"

namespace tidepool {
namespace {

absl::Status OutOfRange(absl::string_view field, const absl::AlphaNum& value, absl::string_view allowed) {
  return absl::InvalidArgumentError(absl::StrCat(field, " is ", value, "; allowed: ", allowed));
}

// The comparisons below are written so that NaN fails them.
absl::Status CheckRange(absl::string_view field, float value, float low, float high, absl::string_view allowed) {
  if (value >= low && value <= high) return absl::OkStatus();
  return OutOfRange(field, value, allowed);
}

absl::Status CheckToken(const std::string& field, int32_t token, int vocabulary) {
  if (token >= 0 && token < vocabulary) return absl::OkStatus();
  return OutOfRange(field, token, absl::StrCat("0 to ", vocabulary - 1, " (the vocabulary)"));
}

absl::Status ValidateLogitBias(const std::vector<std::pair<int32_t, float>>& entries, int vocabulary) {
  if (entries.size() > kMaxLogitBias) {
    return OutOfRange("logit_bias", absl::StrCat(entries.size(), " entries"), absl::StrCat("at most ", kMaxLogitBias));
  }
  std::vector<int32_t> tokens;
  tokens.reserve(entries.size());
  for (size_t i = 0; i < entries.size(); ++i) {
    const std::string field = absl::StrCat("logit_bias[", i, "]");
    TP_RETURN_IF_ERROR(CheckToken(absl::StrCat(field, ".token"), entries[i].first, vocabulary));
    TP_RETURN_IF_ERROR(CheckRange(absl::StrCat(field, ".bias"), entries[i].second, -100, 100, "-100 to 100"));
    tokens.push_back(entries[i].first);
  }
  std::sort(tokens.begin(), tokens.end());
  const auto twice = std::adjacent_find(tokens.begin(), tokens.end());
  if (twice == tokens.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("logit_bias holds token ", *twice, " twice; allowed: each token once"));
}

absl::Status ValidateStopString(const std::string& field, const std::string& text) {
  if (text.empty() || text.size() > kMaxStopStringBytes) {
    return OutOfRange(field, absl::StrCat(text.size(), " bytes long"), absl::StrCat("1 to ", kMaxStopStringBytes));
  }
  if (!IsValidUtf8(text)) return absl::InvalidArgumentError(absl::StrCat(field, " is not valid UTF-8; allowed: UTF-8"));
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateSampling(const SamplingParams& params, int vocabulary) {
  TP_RETURN_IF_ERROR(CheckRange("temperature", params.temperature, 0, 10, "0 (greedy) to 10"));
  if (params.top_k < 0) return OutOfRange("top_k", params.top_k, "0 (all tokens) or more");
  if (!(params.top_p > 0 && params.top_p <= 1)) return OutOfRange("top_p", params.top_p, "above 0, to 1");
  if (!(params.min_p >= 0 && params.min_p < 1)) return OutOfRange("min_p", params.min_p, "0 to below 1");
  if (!(params.repetition_penalty > 0 && params.repetition_penalty <= 10)) {
    return OutOfRange("repetition_penalty", params.repetition_penalty, "above 0, to 10 (1: none)");
  }
  TP_RETURN_IF_ERROR(CheckRange("presence_penalty", params.presence_penalty, -2, 2, "-2 to 2"));
  TP_RETURN_IF_ERROR(CheckRange("frequency_penalty", params.frequency_penalty, -2, 2, "-2 to 2"));
  return ValidateLogitBias(params.logit_bias, vocabulary);
}

absl::Status ValidateStop(const StopParams& params, int vocabulary) {
  if (params.max_tokens < 0) return OutOfRange("max_tokens", params.max_tokens, "0 or more");
  if (params.min_tokens < 0 || params.min_tokens > params.max_tokens) {
    return OutOfRange("min_tokens", params.min_tokens, absl::StrCat("0 to max_tokens, ", params.max_tokens));
  }
  if (params.strings.size() > kMaxStopStrings) {
    return OutOfRange("stop strings", absl::StrCat(params.strings.size(), " entries"),
                      absl::StrCat("at most ", kMaxStopStrings));
  }
  for (size_t i = 0; i < params.strings.size(); ++i) {
    TP_RETURN_IF_ERROR(ValidateStopString(absl::StrCat("stop strings[", i, "]"), params.strings[i]));
  }
  if (params.token_ids.size() > kMaxStopTokenIds) {
    return OutOfRange("stop token_ids", absl::StrCat(params.token_ids.size(), " entries"),
                      absl::StrCat("at most ", kMaxStopTokenIds));
  }
  for (size_t i = 0; i < params.token_ids.size(); ++i) {
    TP_RETURN_IF_ERROR(CheckToken(absl::StrCat("stop token_ids[", i, "]"), params.token_ids[i], vocabulary));
  }
  return absl::OkStatus();
}

}  // namespace tidepool
