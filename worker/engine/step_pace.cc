#include "worker/engine/step_pace.h"

#include <algorithm>
#include <compare>

namespace tidepool {
namespace {

// A prompt has to end some time.
constexpr int kLeastTokens = 2;

// Until it has been seen: what a token of a small piece takes, in those of a large one.
constexpr double kSmallPiece = 2;

// Of the first step after idleness: some milliseconds, in which others arrive.
constexpr int kFirstTokens = 64;

constexpr size_t kMostSharing = 8;
constexpr int32_t kLeastShare = 32;
// Prompts with so many tokens more than others are near to them: what the first step may be ahead, and as much again.
constexpr int32_t kNear = 2 * kFirstTokens;

constexpr double kNew = 0.2;
// Of a step that was slower than others: what comes with a prompt, such as the tokens of its text, slows the steps
// before it, and they would set the pace of the whole prompt.
constexpr double kNewSlower = 0.03;

void Average(double& average, double value, double share = kNew) {
  average = average == 0 ? value : (1 - share) * average + share * value;
}

struct Left {
  int32_t tokens;
  size_t prompt;
  auto operator<=>(const Left&) const = default;
};

// What prompts, in ascending order, are left with when they take so many tokens together, those with most left first.
int32_t LevelOf(absl::Span<const Left> prompts, int32_t taken) {
  int32_t above = -taken;
  for (size_t count = 1;; ++count) {
    above += prompts[prompts.size() - count].tokens;
    const int32_t level = above / static_cast<int32_t>(count);
    if (count == prompts.size() || level >= prompts[prompts.size() - count - 1].tokens) return level;
  }
}

}  // namespace

std::vector<int32_t> PromptShares(int32_t room, absl::Span<const int32_t> left) {
  const size_t sharing = std::min(left.size(), kMostSharing);
  std::vector<int32_t> shares(left.size(), 0);
  for (size_t i = 0; i < left.size() && room > 0; ++i) {
    const auto others = i < sharing ? static_cast<int32_t>(sharing - i) : 1;  // it and those after it
    shares[i] = std::min({room, left[i], std::max(kLeastShare, (room + others - 1) / others)});
    room -= shares[i];
  }
  std::vector<Left> by_left;
  for (size_t i = 0; i < sharing; ++i) by_left.push_back({left[i], i});
  std::sort(by_left.begin(), by_left.end());
  for (size_t first = 0, end = 0; first < sharing; first = end) {
    int32_t taken = 0;  // by those that are near to the first
    for (end = first; end < sharing && by_left[end].tokens <= by_left[first].tokens + kNear; ++end) {
      taken += shares[by_left[end].prompt];
    }
    const absl::Span<const Left> near = absl::MakeConstSpan(by_left).subspan(first, end - first);
    if (near.size() < 2 || taken < static_cast<int32_t>(near.size()) * kLeastShare) continue;
    const int32_t level = LevelOf(near, taken);
    for (const Left& of : near) {
      shares[of.prompt] = std::min(std::max(0, of.tokens - level), taken);
      taken -= shares[of.prompt];
    }
  }
  return shares;
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
