#include "worker/model/token_classes.h"

#include "worker/model/tokenizer.h"
#include "worker/model/unicode_text.h"

namespace tidepool {

TokenClass ClassOfText(std::string_view text) {
  bool mark = false;
  for (size_t at = 0; at < text.size();) {
    const Character c = CharacterAt(text, at);
    at += c.size;
    if (c.codepoint == U'\n' || IsPunctuation(c.codepoint)) {
      mark = true;
    } else if (c.character_class != CharClass::kSpace) {
      return TokenClass::kOther;
    }
  }
  return mark ? TokenClass::kPunctuation : TokenClass::kOther;
}

std::vector<TokenClass> ClassesOfVocabulary(const Tokenizer& tokenizer) {
  std::vector<TokenClass> classes;
  classes.reserve(tokenizer.vocabulary());
  for (int32_t token = 0; token < tokenizer.vocabulary(); ++token) {
    classes.push_back(tokenizer.is_special(token) ? TokenClass::kSpecial : ClassOfText(tokenizer.Piece(token)));
  }
  return classes;
}

}  // namespace tidepool
