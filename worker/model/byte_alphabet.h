// The printable alphabet in which byte-level vocabularies write raw bytes (GPT-2): bytes 33-126, 161-172 and 174-255
// stand for the code points of the same number, the other 68 for U+0100, U+0101, ... in order of the byte.
#ifndef TIDEPOOL_WORKER_MODEL_BYTE_ALPHABET_H_
#define TIDEPOOL_WORKER_MODEL_BYTE_ALPHABET_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace tidepool {

char32_t ByteToLetter(uint8_t byte);
std::string BytesToLetters(std::string_view bytes);
// Nothing when the text has a character outside the alphabet.
std::optional<std::string> LettersToBytes(std::string_view text);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_MODEL_BYTE_ALPHABET_H_
