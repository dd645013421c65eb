// UTF-8 text, one character at a time, with the classes that tokenizers split by (categories from ICU).
#ifndef TIDEPOOL_WORKER_MODEL_UNICODE_TEXT_H_
#define TIDEPOOL_WORKER_MODEL_UNICODE_TEXT_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace tidepool {

enum class CharClass : uint8_t {
  kLetter,  // \p{L}
  kNumber,  // \p{N}
  kSpace,   // \s: property White_Space
  kOther,   // the rest, and each byte that is not part of valid UTF-8
};

struct Character {
  CharClass character_class = CharClass::kOther;
  uint8_t size = 0;        // bytes; 0 only at the end of the text
  char32_t codepoint = 0;  // U+FFFD for an invalid byte
};

// The character that begins at text[at]. Invalid UTF-8 (also overlong forms and surrogates) is taken byte by byte.
Character CharacterAt(std::string_view text, size_t at);
// \p{P}, and the ASCII symbols that Python's string.punctuation has beside it.
bool IsPunctuation(char32_t codepoint);
// Normalisation form C; text that is not valid UTF-8 is returned as it is.
std::string ComposeNfc(std::string_view text);
void AppendUtf8(char32_t codepoint, std::string* out);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_MODEL_UNICODE_TEXT_H_
