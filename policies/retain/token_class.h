// What kind of token stands at a position of a sequence, for policies that treat some kinds apart.
#ifndef TIDEPOOL_POLICIES_RETAIN_TOKEN_CLASS_H_
#define TIDEPOOL_POLICIES_RETAIN_TOKEN_CLASS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "base/check.h"

namespace tidepool {

enum class TokenClass : uint8_t { kOther, kSpecial, kPunctuation };

// Of one sequence. What is pointed to outlives it.
struct SequenceClasses {
  absl::Span<const TokenClass> of_vocabulary;       // by token id; empty: nobody knows, all are kOther
  const std::vector<int32_t>* token_ids = nullptr;  // by position

  TokenClass At(int32_t position) const {
    if (of_vocabulary.empty()) return TokenClass::kOther;
    TIDEPOOL_CHECK(position >= 0 && position < static_cast<int32_t>(token_ids->size()));
    return of_vocabulary[(*token_ids)[position]];
  }
};

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_RETAIN_TOKEN_CLASS_H_
