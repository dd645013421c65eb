#include "worker/model/token_classes.h"

#include <gtest/gtest.h>

#include "tests/support/paths.h"
#include "worker/model/model.h"

namespace tidepool {
namespace {

TEST(TokenClassesTest, PunctuationIsMarksAndWhiteSpaceOnly) {
  for (const char* text : {".", " ,", "?!", "\n", " \n\n", "...\n", "$", "\xe3\x80\x82", "\xe2\x80\x94", "();"}) {
    EXPECT_EQ(ClassOfText(text), TokenClass::kPunctuation) << text;
  }
  // No mark; something else beside it; a symbol beyond ASCII; half of a character.
  for (const char* text : {"", " ", "\t", "a", ".a", "3.", "\xe2\x82\xac", "\xe3\x80"}) {
    EXPECT_EQ(ClassOfText(text), TokenClass::kOther) << text;
  }
}

TEST(TokenClassesTest, EveryTokenOfAVocabularyHasItsClass) {
  const auto model = *Model::Load(test::DataPath("tiny_models/llama_f16.gguf"));
  const Tokenizer& tokenizer = model->tokenizer();
  const std::vector<TokenClass> classes = ClassesOfVocabulary(tokenizer);
  ASSERT_EQ(static_cast<int>(classes.size()), tokenizer.vocabulary());
  for (int32_t token = 0; token < tokenizer.vocabulary(); ++token) {
    const bool special = classes[token] == TokenClass::kSpecial;
    EXPECT_EQ(special, tokenizer.is_special(token)) << token;
    if (special) continue;
    EXPECT_EQ(classes[token], ClassOfText(tokenizer.Piece(token))) << token;
  }
  EXPECT_EQ(classes[tokenizer.Encode(".", false, false).back()], TokenClass::kPunctuation);
  EXPECT_EQ(classes[*tokenizer.eos()], TokenClass::kSpecial);
}

}  // namespace
}  // namespace tidepool
