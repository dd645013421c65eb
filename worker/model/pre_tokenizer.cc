#include "worker/model/pre_tokenizer.h"

#include <cstddef>

#include "base/check.h"
#include "worker/model/unicode_text.h"

namespace tidepool {
namespace {

bool IsNewline(const Character& c) { return c.codepoint == '\r' || c.codepoint == '\n'; }

// End of the longest run of `wanted` that begins at `at`.
size_t RunEnd(std::string_view text, size_t at, CharClass wanted) {
  for (;;) {
    const Character c = CharacterAt(text, at);
    if (c.size == 0 || c.character_class != wanted) return at;
    at += c.size;
  }
}

// Length of 's 't 're 've 'm 'll 'd at text[at], which is an apostrophe; 0 when there is none.
size_t ContractionSize(std::string_view text, size_t at, bool ignore_case) {
  const auto letter = [&](size_t i) -> char {
    if (at + i >= text.size()) return '\0';
    const char c = text[at + i];
    return ignore_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  };
  switch (letter(1)) {
    case 's':
    case 't':
    case 'm':
    case 'd': return 2;
    case 'r':
    case 'v': return letter(2) == 'e' ? 3 : 0;
    case 'l': return letter(2) == 'l' ? 3 : 0;
    default: return 0;
  }
}

// \s+(?!\S)|\s+ : the whole run at the end of the text, else all but its last character, which goes to the next word.
// With `break_after_newlines` first \s*[\r\n]+ : up to the run's last line break when it has one.
size_t SpaceEnd(std::string_view text, size_t at, bool break_after_newlines) {
  size_t end = at, last = at, after_newline = at;
  for (;;) {
    const Character c = CharacterAt(text, end);
    if (c.size == 0 || c.character_class != CharClass::kSpace) break;
    last = end;
    end += c.size;
    if (IsNewline(c)) after_newline = end;
  }
  if (break_after_newlines && after_newline > at) return after_newline;
  return end == text.size() || last == at ? end : last;
}

size_t Gpt2PieceEnd(std::string_view text, size_t at) {
  Character c = CharacterAt(text, at);
  if (c.codepoint == '\'') {
    const size_t size = ContractionSize(text, at, /*ignore_case=*/false);
    if (size > 0) return at + size;
  }
  size_t start = at;
  if (c.codepoint == ' ') {
    const Character next = CharacterAt(text, at + 1);
    if (next.size > 0 && next.character_class != CharClass::kSpace) {
      start = at + 1;
      c = next;
    }
  }
  if (c.character_class == CharClass::kSpace) return SpaceEnd(text, at, /*break_after_newlines=*/false);
  return RunEnd(text, start, c.character_class);
}

// End of [^\r\n\p{L}\p{N}]?\p{L}+ at `at`; `at` when it does not match.
size_t WordEnd(std::string_view text, size_t at, const Character& c) {
  if (c.character_class == CharClass::kLetter) return RunEnd(text, at, CharClass::kLetter);
  if (c.character_class == CharClass::kNumber || IsNewline(c)) return at;
  const size_t end = RunEnd(text, at + c.size, CharClass::kLetter);
  return end > at + c.size ? end : at;
}

// End of ` ?[^\s\p{L}\p{N}]+[\r\n]*` at `at`; `at` when it does not match.
size_t SymbolsEnd(std::string_view text, size_t at, const Character& c) {
  const size_t start = c.codepoint == ' ' ? at + 1 : at;
  size_t end = RunEnd(text, start, CharClass::kOther);
  if (end == start) return at;
  while (end < text.size() && (text[end] == '\r' || text[end] == '\n')) ++end;
  return end;
}

size_t Llama3PieceEnd(std::string_view text, size_t at, int most_digits) {
  const Character c = CharacterAt(text, at);
  if (c.codepoint == '\'') {
    const size_t size = ContractionSize(text, at, /*ignore_case=*/true);
    if (size > 0) return at + size;
  }
  const size_t word = WordEnd(text, at, c);
  if (word > at) return word;
  if (c.character_class == CharClass::kNumber) {
    size_t end = at + c.size;
    for (int digits = 1; digits < most_digits; ++digits) {
      const Character next = CharacterAt(text, end);
      if (next.size == 0 || next.character_class != CharClass::kNumber) break;
      end += next.size;
    }
    return end;
  }
  const size_t symbols = SymbolsEnd(text, at, c);
  if (symbols > at) return symbols;
  return SpaceEnd(text, at, /*break_after_newlines=*/true);
}

void SplitGpt2(std::string_view text, absl::FunctionRef<void(std::string_view)> emit) {
  for (size_t at = 0; at < text.size();) {
    const size_t end = Gpt2PieceEnd(text, at);
    TIDEPOOL_CHECK(end > at);
    emit(text.substr(at, end - at));
    at = end;
  }
}

void SplitSmollm(std::string_view text, absl::FunctionRef<void(std::string_view)> emit) {
  size_t stretch = 0;
  for (size_t at = 0; at < text.size();) {
    const Character c = CharacterAt(text, at);
    if (c.character_class == CharClass::kNumber) {
      SplitGpt2(text.substr(stretch, at - stretch), emit);
      emit(text.substr(at, c.size));
      stretch = at + c.size;
    }
    at += c.size;
  }
  SplitGpt2(text.substr(stretch), emit);
}

void SplitLlama3(std::string_view text, int most_digits, absl::FunctionRef<void(std::string_view)> emit) {
  for (size_t at = 0; at < text.size();) {
    const size_t end = Llama3PieceEnd(text, at, most_digits);
    TIDEPOOL_CHECK(end > at);
    emit(text.substr(at, end - at));
    at = end;
  }
}

}  // namespace

std::optional<PreTokenizer> PreTokenizerNamed(std::string_view name) {
  if (name == "gpt-2" || name == "default") return PreTokenizer::kGpt2;
  if (name == "smollm") return PreTokenizer::kSmollm;
  if (name == "llama-bpe" || name == "llama3" || name == "llama-v3") return PreTokenizer::kLlama3;
  if (name == "qwen2" || name == "deepseek-r1-qwen") return PreTokenizer::kQwen2;
  return std::nullopt;
}

void SplitText(PreTokenizer pre_tokenizer, std::string_view text, absl::FunctionRef<void(std::string_view)> emit) {
  switch (pre_tokenizer) {
    case PreTokenizer::kGpt2: return SplitGpt2(text, emit);
    case PreTokenizer::kSmollm: return SplitSmollm(text, emit);
    case PreTokenizer::kLlama3: return SplitLlama3(text, 3, emit);
    case PreTokenizer::kQwen2: return SplitLlama3(text, 1, emit);
  }
  TIDEPOOL_CHECK(false);
}

}  // namespace tidepool
