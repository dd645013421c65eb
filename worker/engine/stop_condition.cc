#include "worker/engine/stop_condition.h"

#include <algorithm>

#include "base/check.h"

namespace tidepool {

StopCondition::StopCondition(const StopParams& params, absl::Span<const int32_t> end_of_generation)
    : max_tokens_(params.max_tokens),
      min_tokens_(params.min_tokens),
      final_tokens_(params.token_ids),
      strings_(params.strings),
      text_(params.strings) {
  if (!params.ignore_eos) final_tokens_.insert(final_tokens_.end(), end_of_generation.begin(), end_of_generation.end());
  std::sort(final_tokens_.begin(), final_tokens_.end());
}

StopCondition::Verdict StopCondition::Accept(int32_t token, std::string_view piece) {
  TIDEPOOL_CHECK(!exhausted());
  ++generated_tokens_;
  const bool may_stop = generated_tokens_ > min_tokens_;
  Verdict verdict;
  if (may_stop && std::binary_search(final_tokens_.begin(), final_tokens_.end(), token)) {
    verdict.reason = StopReason::kToken;
    verdict.text = text_.Finish();
    return verdict;
  }
  verdict.text = text_.Push(piece, may_stop);
  if (text_.matched().has_value()) {
    verdict.reason = StopReason::kString;
    verdict.stop_string = strings_[*text_.matched()];
  } else if (exhausted()) {
    verdict.reason = StopReason::kLength;
    verdict.text += text_.Finish();
  }
  return verdict;
}

}  // namespace tidepool
