#include "worker/kv/repetition.h"

#include <algorithm>

#include "base/check.h"

namespace tidepool {
namespace {

// Of the tokens before a piece, by which the model finds it: as in the authors' code.
constexpr int32_t kLeadTokens = 8;

}  // namespace

Repetition::Repetition(const RepetitionWords& words, absl::Span<const int32_t> context, int32_t from,
                       int32_t piece_tokens)
    : words_(words), context_(context), piece_tokens_(piece_tokens) {
  TIDEPOOL_CHECK(from >= 0 && from <= static_cast<int32_t>(context.size()) && piece_tokens >= 1);
  StartPiece(from);
}

void Repetition::StartPiece(int32_t first) {
  const auto context_tokens = static_cast<int32_t>(context_.size());
  piece_ = {.first = first, .last = std::min(first + piece_tokens_, context_tokens), .repetition = context_tokens};
  computed_ = 0;
  tokens_ = first == 0 ? words_.first : words_.next;
  const int32_t lead = std::min(first, kLeadTokens);
  tokens_.insert(tokens_.end(), context_.begin() + first - lead, context_.begin() + first);
  tokens_.insert(tokens_.end(), words_.end.begin(), words_.end.end());
  tokens_.insert(tokens_.end(), context_.begin() + piece_.first, context_.begin() + piece_.last);
}

bool Repetition::Advance(int32_t count) {
  computed_ += count;
  TIDEPOOL_CHECK(!done() && computed_ <= static_cast<int32_t>(tokens_.size()));
  if (computed_ < static_cast<int32_t>(tokens_.size())) return false;
  StartPiece(piece_.last);
  return true;
}

int32_t Repetition::MostTokens(const RepetitionWords& words, int32_t piece_tokens) {
  const size_t asks = std::max(words.first.size(), words.next.size() + kLeadTokens);
  return static_cast<int32_t>(asks + words.end.size()) + piece_tokens;
}

}  // namespace tidepool
