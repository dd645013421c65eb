#include "worker/engine/step_pace.h"

#include <algorithm>

namespace tidepool {
namespace {

// A prompt has to end some time.
constexpr int kLeastTokens = 2;

// Until it has been seen: what a token of a small piece takes, in those of a large one.
constexpr double kSmallPiece = 2;

// Of the first step after idleness: some milliseconds, in which others arrive.
constexpr int kFirstTokens = 64;

constexpr double kNew = 0.2;
// Of a step that was slower than others: what comes with a prompt, such as the tokens of its text, slows the steps
// before it, and they would set the pace of the whole prompt.
constexpr double kNewSlower = 0.03;

void Average(double& average, double value, double share = kNew) {
  average = average == 0 ? value : (1 - share) * average + share * value;
}

}  // namespace

int PromptShare(int room, size_t prompts, size_t index) {
  constexpr size_t kMostSharing = 8;
  constexpr int kLeastShare = 32;
  const size_t sharing = std::min(prompts, kMostSharing);
  const int left = index < sharing ? static_cast<int>(sharing - index) : 1;
  return std::min(room, std::max(kLeastShare, (room + left - 1) / left));
}

int StepPace::PromptTokens(int decoding) const {
  if (idle_) return std::min(kFirstTokens, most_tokens_);
  if (decoding == 0 || pace_ == 0 || decode_step_ == 0 || prompt_token_ == 0) return most_tokens_;
  const double token = beside_token_ > 0 ? beside_token_ : kSmallPiece * prompt_token_;
  const double tokens = std::min<double>((pace_ - 1) * decode_step_ / token, most_tokens_);
  return std::clamp(static_cast<int>(tokens), std::min(kLeastTokens, most_tokens_), most_tokens_);
}

absl::Duration StepPace::Observe(int decoding, int prompt_tokens, absl::Duration took) {
  idle_ = false;
  const double seconds = absl::ToDoubleSeconds(took);
  if (prompt_tokens == 0) {
    if (decoding > 0) Average(decode_step_, seconds, seconds > decode_step_ ? kNewSlower : kNew);
    return absl::ZeroDuration();
  }
  // A session's turn with recall goes token by token, and waits: nothing to plan by.
  if (prompt_tokens < kLeastTokens) return absl::ZeroDuration();
  // Beside decoding sequences their share is taken off; a step that was quicker than they alone says nothing.
  const double prompts = seconds - (decoding > 0 ? decode_step_ : 0);
  if (prompts <= 0) return absl::ZeroDuration();
  Average(prompt_token_, prompts / prompt_tokens);
  if (decoding > 0) Average(beside_token_, prompts / prompt_tokens);
  return absl::Seconds(prompts / prompt_tokens);
}

}  // namespace tidepool
