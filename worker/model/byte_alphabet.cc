#include "worker/model/byte_alphabet.h"

#include <array>

#include "worker/model/unicode_text.h"

namespace tidepool {
namespace {

constexpr char32_t kFirstStandIn = 0x100;

constexpr bool StandsForItself(int byte) {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

struct Tables {
  std::array<char32_t, 256> letters{};
  std::array<uint8_t, 68> stand_ins{};  // the byte of U+0100 + i
};

constexpr Tables MakeTables() {
  Tables tables;
  size_t stand_in = 0;
  for (int byte = 0; byte < 256; ++byte) {
    if (StandsForItself(byte)) {
      tables.letters[byte] = static_cast<char32_t>(byte);
    } else {
      tables.stand_ins[stand_in] = static_cast<uint8_t>(byte);
      tables.letters[byte] = kFirstStandIn + static_cast<char32_t>(stand_in++);
    }
  }
  return tables;
}

constexpr Tables kTables = MakeTables();

}  // namespace

char32_t ByteToLetter(uint8_t byte) { return kTables.letters[byte]; }

std::string BytesToLetters(std::string_view bytes) {
  std::string letters;
  letters.reserve(bytes.size() * 2);
  for (const char byte : bytes) AppendUtf8(ByteToLetter(static_cast<uint8_t>(byte)), &letters);
  return letters;
}

std::optional<std::string> LettersToBytes(std::string_view text) {
  std::string bytes;
  bytes.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Character c = CharacterAt(text, at);
    at += c.size;
    if (c.codepoint < kFirstStandIn && StandsForItself(static_cast<int>(c.codepoint))) {
      bytes.push_back(static_cast<char>(c.codepoint));
    } else if (c.codepoint >= kFirstStandIn && c.codepoint < kFirstStandIn + kTables.stand_ins.size()) {
      bytes.push_back(static_cast<char>(kTables.stand_ins[c.codepoint - kFirstStandIn]));
    } else {
      return std::nullopt;
    }
  }
  return bytes;
}

}  // namespace tidepool
