// Splits text into the pieces that byte-level BPE never merges across. Each family's regular expression is followed by
// hand in one pass, so the time is linear in the text.
#ifndef TIDEPOOL_WORKER_MODEL_PRE_TOKENIZER_H_
#define TIDEPOOL_WORKER_MODEL_PRE_TOKENIZER_H_

#include <optional>
#include <string_view>

#include "absl/functional/function_ref.h"

namespace tidepool {

enum class PreTokenizer {
  // 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
  kGpt2,
  // Each \p{N} is a piece; the text between them is split as by kGpt2, each stretch as if it were the whole text.
  kSmollm,
  // (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
  kLlama3,
  // As kLlama3 with \p{N} for \p{N}{1,3}.
  kQwen2,
};

// By the value of tokenizer.ggml.pre; nothing when it is not known.
std::optional<PreTokenizer> PreTokenizerNamed(std::string_view name);
// Calls emit for each piece in order; the pieces joined are the text.
void SplitText(PreTokenizer pre_tokenizer, std::string_view text, absl::FunctionRef<void(std::string_view)> emit);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_MODEL_PRE_TOKENIZER_H_
