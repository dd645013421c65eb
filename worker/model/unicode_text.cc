#include "worker/model/unicode_text.h"

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/stringpiece.h>
#include <unicode/uchar.h>
#include <unicode/utf8.h>

#include <array>

#include "base/check.h"

namespace tidepool {
namespace {

constexpr char32_t kReplacement = 0xfffd;

CharClass ClassOf(char32_t codepoint) {
  const UChar32 c = static_cast<UChar32>(codepoint);
  const uint32_t category = U_GET_GC_MASK(c);
  if (category & U_GC_L_MASK) return CharClass::kLetter;
  if (category & U_GC_N_MASK) return CharClass::kNumber;
  return u_isUWhiteSpace(c) ? CharClass::kSpace : CharClass::kOther;
}

std::array<CharClass, 128> MakeAsciiClasses() {
  std::array<CharClass, 128> classes;
  for (char32_t c = 0; c < 128; ++c) classes[c] = ClassOf(c);
  return classes;
}

}  // namespace

Character CharacterAt(std::string_view text, size_t at) {
  static const std::array<CharClass, 128> ascii = MakeAsciiClasses();
  if (at >= text.size()) return {};
  const uint8_t lead = static_cast<uint8_t>(text[at]);
  if (lead < 128) return {ascii[lead], 1, lead};
  // A character has at most 4 bytes, and the macro counts in int32.
  const uint8_t* bytes = reinterpret_cast<const uint8_t*>(text.data()) + at;
  const int32_t left = static_cast<int32_t>(text.size() - at < 4 ? text.size() - at : 4);
  int32_t used = 0;
  UChar32 codepoint = 0;
  U8_NEXT(bytes, used, left, codepoint);
  if (codepoint < 0) return {CharClass::kOther, 1, kReplacement};
  return {ClassOf(static_cast<char32_t>(codepoint)), static_cast<uint8_t>(used), static_cast<char32_t>(codepoint)};
}

bool IsPunctuation(char32_t codepoint) {
  const uint32_t category = U_GET_GC_MASK(static_cast<UChar32>(codepoint));
  return (category & U_GC_P_MASK) != 0 || (codepoint < 128 && (category & U_GC_S_MASK) != 0);
}

std::string ComposeNfc(std::string_view text) {
  bool ascii = true;
  for (size_t at = 0; at < text.size();) {
    const Character c = CharacterAt(text, at);
    if (c.codepoint == kReplacement && c.size == 1) return std::string(text);
    ascii = ascii && c.size == 1;
    at += c.size;
  }
  if (ascii) return std::string(text);
  UErrorCode error = U_ZERO_ERROR;
  const icu::Normalizer2* nfc = icu::Normalizer2::getNFCInstance(error);
  TIDEPOOL_CHECK(U_SUCCESS(error));  // the data are linked in
  std::string composed;
  icu::StringByteSink<std::string> sink(&composed);
  nfc->normalizeUTF8(0, icu::StringPiece(text.data(), static_cast<int32_t>(text.size())), sink, nullptr, error);
  return U_SUCCESS(error) ? composed : std::string(text);
}

void AppendUtf8(char32_t codepoint, std::string* out) {
  TIDEPOOL_CHECK(codepoint <= 0x10ffff);
  char bytes[U8_MAX_LENGTH];
  int32_t size = 0;
  U8_APPEND_UNSAFE(bytes, size, static_cast<UChar32>(codepoint));
  out->append(bytes, static_cast<size_t>(size));
}

}  // namespace tidepool
