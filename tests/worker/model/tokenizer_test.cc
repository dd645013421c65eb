// How tokenizers treat special tokens, missing bytes, the ends of a text, and texts made to be slow.
#include "worker/model/tokenizer.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/limits.h"
#include "tests/worker/model/gguf_builder.h"
#include "worker/model/gguf_file.h"

namespace tidepool {
namespace {

using test::GgufBuilder;
using Ids = std::vector<int32_t>;

std::unique_ptr<Tokenizer> Make(const GgufBuilder& builder) {
  const std::string bytes = builder.Build();  // the tokenizer keeps copies
  const auto file = GgufFile::Parse("test.gguf", test::AsBytes(bytes));
  if (!file.ok()) throw std::runtime_error(file.status().ToString());
  auto tokenizer = Tokenizer::FromGguf(**file);
  if (!tokenizer.ok()) throw std::runtime_error(tokenizer.status().ToString());
  return std::move(*tokenizer);
}

GgufBuilder ByteVocabulary(std::string_view pre_tokenizer) {
  GgufBuilder builder;
  test::AddByteVocabulary(pre_tokenizer, &builder);
  return builder;
}

constexpr int32_t kAb = 256, kStart = 257, kEnd = 258, kTool = 259;

TEST(BpeTokenizerTest, ControlTokensAreRecognisedOnlyWhenAskedFor) {
  const auto tokenizer = Make(ByteVocabulary("smollm"));
  EXPECT_EQ(tokenizer->Encode("ab<|im_end|>", true, false), (Ids{kAb, kEnd}));
  const Ids plain = tokenizer->Encode("ab<|im_end|>", false, false);
  EXPECT_EQ(plain.size(), 11u);  // each byte of the marker, for nothing but a and b merges
  EXPECT_EQ(tokenizer->Decode(plain), "ab<|im_end|>");
  EXPECT_EQ(tokenizer->Decode(Ids{kAb, kEnd}), "ab");
  EXPECT_EQ(tokenizer->Decode(Ids{kAb, kEnd}, true), "ab<|im_end|>");
}

TEST(BpeTokenizerTest, UserDefinedTokensAreAlwaysRecognised) {
  const auto tokenizer = Make(ByteVocabulary("smollm"));
  EXPECT_EQ(tokenizer->Encode("a<tool>b", false, false), (Ids{'a', kTool, 'b'}));
  EXPECT_EQ(tokenizer->Piece(kTool), "<tool>");
  EXPECT_FALSE(tokenizer->is_special(kTool));
}

TEST(BpeTokenizerTest, OfTokensAtOnePlaceTheLongestIsTaken) {
  GgufBuilder builder = ByteVocabulary("smollm");
  std::vector<std::string> tokens;
  for (int i = 0; i < 256; ++i) tokens.push_back(absl::StrCat("t", i));
  tokens.insert(tokens.end(), {"<x", "<x>", "<x>>", "x>"});
  builder.Strings("tokenizer.ggml.tokens", tokens).Erase("tokenizer.ggml.merges");
  std::vector<int32_t> kinds(260, 1);
  kinds[256] = kinds[257] = kinds[258] = kinds[259] = 3;
  builder.Array("tokenizer.ggml.token_type", 5, kinds);
  const auto tokenizer = Make(builder);
  EXPECT_EQ(tokenizer->Encode("<x>", true, false), (Ids{257}));
  EXPECT_EQ(tokenizer->Encode("<x>>", true, false), (Ids{258}));
  EXPECT_EQ(tokenizer->Encode("<x><x", true, false), (Ids{257, 256}));
  EXPECT_EQ(tokenizer->Encode("x>", true, false), (Ids{259}));
}

TEST(BpeTokenizerTest, SpecialTokensDoNotReachIntoUntrustedSegments) {
  const auto tokenizer = Make(ByteVocabulary("smollm"));
  const auto encode = [&](const std::vector<TextSegment>& segments) {
    return tokenizer->EncodeSegments(segments, false);
  };
  EXPECT_EQ(encode({{"<|im_start|>", true}, {"<|im_end|>", false}, {"<|im_end|>", true}}).size(), 12u);
  EXPECT_EQ(encode({{"<|im_", true}, {"end|>", false}}), tokenizer->Encode("<|im_end|>", false, false));
  EXPECT_EQ(encode({{"<|im_", false}, {"end|>", true}}), tokenizer->Encode("<|im_end|>", false, false));
  EXPECT_EQ(encode({{"a", true}, {"b", false}}), (Ids{kAb}));  // merges see the joined text
  EXPECT_EQ(encode({}), Ids{});
}

TEST(BpeTokenizerTest, BeginningAndEndAreAddedAsTheFileSays) {
  GgufBuilder builder = ByteVocabulary("smollm");
  EXPECT_EQ(Make(builder)->Encode("a", false, true), (Ids{'a'}));
  builder.Bool("tokenizer.ggml.add_bos_token", 1).Bool("tokenizer.ggml.add_eos_token", 1);
  EXPECT_EQ(Make(builder)->Encode("a", false, true), (Ids{kStart, 'a', kEnd}));
  EXPECT_EQ(Make(builder)->Encode("a", false, false), (Ids{'a'}));
  EXPECT_EQ(Make(builder)->Encode("", false, true), (Ids{kStart, kEnd}));
  EXPECT_EQ(Make(ByteVocabulary("llama-bpe"))->Encode("a", false, true), (Ids{kStart, 'a'}));  // Llama 3's default
}

TEST(BpeTokenizerTest, EndsOfGenerationAreEosEotAndTheKnownNames) {
  GgufBuilder builder = ByteVocabulary("smollm");
  builder.U32("tokenizer.ggml.eos_token_id", 65).U32("tokenizer.ggml.eot_token_id", 66);
  EXPECT_EQ(Make(builder)->end_of_generation(), (Ids{65, 66, kEnd}));
}

TEST(BpeTokenizerTest, AnyBytesSurvive) {
  const auto tokenizer = Make(ByteVocabulary("qwen2"));
  std::string text;
  for (int i = 0; i < 512; ++i) text.push_back(static_cast<char>(i * 37));
  EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text, false, false)), text);
  EXPECT_EQ(tokenizer->Decode(tokenizer->Encode("\xed\xa0\x80\xf4\x90\x80\x80\xc0\xaf\xe2\x82", false, false)),
            "\xed\xa0\x80\xf4\x90\x80\x80\xc0\xaf\xe2\x82");
}

TEST(BpeTokenizerTest, QwenComposesAndTheOthersDoNot) {
  const std::string decomposed = "e\xcc\x81", composed = "\xc3\xa9";
  EXPECT_EQ(Make(ByteVocabulary("qwen2"))->Decode(Make(ByteVocabulary("qwen2"))->Encode(decomposed, false, false)),
            composed);
  EXPECT_EQ(
      Make(ByteVocabulary("llama-bpe"))->Decode(Make(ByteVocabulary("llama-bpe"))->Encode(decomposed, false, false)),
      decomposed);
}

TEST(BpeTokenizerTest, TokensOutOfRangeHaveNoPiece) {
  const auto tokenizer = Make(ByteVocabulary("smollm"));
  EXPECT_EQ(tokenizer->Piece(-1), "");
  EXPECT_EQ(tokenizer->Piece(260, true), "");
  EXPECT_FALSE(tokenizer->is_special(-1));
  EXPECT_FALSE(tokenizer->is_special(1 << 30));
}

// The texts that make a quadratic implementation run for hours: one long piece, long runs of blanks, near misses of
// markers.
TEST(BpeTokenizerTest, TheLongestPromptOfOneKindIsTokenizedInOneGo) {
  GgufBuilder builder = ByteVocabulary("llama-bpe");
  std::vector<std::string> tokens = {"a", "aa", "aaaa", "aaaaaaaa", "\xc4\xa0", "<", "<|end"};
  builder.Strings("tokenizer.ggml.tokens", tokens).Strings("tokenizer.ggml.merges", {"a a", "aa aa", "aaaa aaaa"});
  builder.Array<int32_t>("tokenizer.ggml.token_type", 5, {1, 1, 1, 1, 1, 1, 3});
  builder.U32("tokenizer.ggml.bos_token_id", 0).U32("tokenizer.ggml.eos_token_id", 0);
  const auto tokenizer = Make(builder);
  EXPECT_EQ(tokenizer->Encode(std::string(kMaxPromptBytes, 'a'), true, false), Ids(kMaxPromptBytes / 8, 3));
  EXPECT_EQ(tokenizer->Encode(std::string(kMaxPromptBytes, ' '), true, false), Ids(kMaxPromptBytes, 4));
  EXPECT_EQ(tokenizer->Encode(std::string(kMaxPromptBytes, '<'), true, false), Ids(kMaxPromptBytes, 5));
  EXPECT_EQ(tokenizer->Encode(std::string(kMaxPromptBytes, '\n'), true, false), Ids{});
}

// A SentencePiece vocabulary written by hand.
//   0 <unk>  1 <s>  2 </s>  3.. bytes  then pieces with scores
constexpr char kMark[] = "\xe2\x96\x81";

GgufBuilder SpmVocabulary(bool with_bytes) {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  std::vector<float> scores = {0, 0, 0};
  std::vector<int32_t> kinds = {2, 3, 3};
  const auto add = [&](const std::string& text, float score, int32_t kind) {
    tokens.push_back(text);
    scores.push_back(score);
    kinds.push_back(kind);
  };
  const std::string mark = kMark;
  for (const auto& [text, score] : std::vector<std::pair<std::string, float>>{{mark, -10},
                                                                              {"a", -11},
                                                                              {"b", -12},
                                                                              {"c", -13},
                                                                              {"ab", -2},
                                                                              {"bc", -1},
                                                                              {mark + "a", -3},
                                                                              {"abc", -4},
                                                                              {"<", -20},
                                                                              {"/", -20},
                                                                              {"s", -20},
                                                                              {">", -20},
                                                                              {"</", -5},
                                                                              {"s>", -5}}) {
    add(text, score, 1);
  }
  if (with_bytes) {
    for (int byte = 0; byte < 256; ++byte) {
      char text[8];
      std::snprintf(text, sizeof text, "<0x%02X>", byte);
      add(text, 0, 6);
    }
  }
  GgufBuilder builder;
  builder.String("tokenizer.ggml.model", "llama").Strings("tokenizer.ggml.tokens", tokens);
  builder.Array("tokenizer.ggml.scores", 6, scores).Array("tokenizer.ggml.token_type", 5, kinds);
  builder.U32("tokenizer.ggml.bos_token_id", 1)
      .U32("tokenizer.ggml.eos_token_id", 2)
      .U32("tokenizer.ggml.unknown_token_id", 0);
  return builder;
}

constexpr int32_t kSpace = 3, kB = 5, kC = 6, kSpmAb = 7, kBc = 8, kSpaceA = 9, kAbc = 10, kFirstByte = 17;

TEST(SpmTokenizerTest, BestScoreMergesFirst) {
  GgufBuilder builder = SpmVocabulary(true);
  builder.Bool("tokenizer.ggml.add_space_prefix", 0);
  const auto tokenizer = Make(builder);
  EXPECT_EQ(tokenizer->Encode("abc", false, false), (Ids{kAbc}));  // bc first, then a + bc
  EXPECT_EQ(tokenizer->Encode("ab", false, false), (Ids{kSpmAb}));
  EXPECT_EQ(tokenizer->Encode("bcab", false, false), (Ids{kBc, kSpmAb}));
  EXPECT_EQ(tokenizer->Encode(" ab", false, false), (Ids{kSpace, kSpmAb}));  // ab (-2) before the space's a (-3)
  EXPECT_EQ(tokenizer->Encode(" ac", false, false), (Ids{kSpaceA, kC}));
}

TEST(SpmTokenizerTest, ASpaceStandsInFrontAndAfterEachSpecialToken) {
  const auto tokenizer = Make(SpmVocabulary(true));
  EXPECT_EQ(tokenizer->Encode("c", false, true), (Ids{1, kSpace, kC}));
  EXPECT_EQ(tokenizer->Encode("<s>c</s>c", true, false), (Ids{1, kSpace, kC, 2, kSpace, kC}));
  EXPECT_EQ(tokenizer->Encode("", false, true), (Ids{1}));
  EXPECT_EQ(tokenizer->Decode(Ids{1, kSpace, kC}), " c");
}

TEST(SpmTokenizerTest, PlainTextNeverBecomesAControlToken) {
  const auto tokenizer = Make(SpmVocabulary(true));
  EXPECT_EQ(tokenizer->Encode("</s>", false, false), (Ids{kSpace, 15, 16}));  // "</" and "s>" do not join to token 2
  EXPECT_EQ(tokenizer->Encode("</s>", true, false), (Ids{2}));
}

TEST(SpmTokenizerTest, UnknownCharactersFallBackToBytes) {
  const auto tokenizer = Make(SpmVocabulary(true));
  EXPECT_EQ(tokenizer->Encode("\xc3\xa9", false, false), (Ids{kSpace, kFirstByte + 0xc3, kFirstByte + 0xa9}));
  EXPECT_EQ(tokenizer->Encode("\xff", false, false), (Ids{kSpace, kFirstByte + 0xff}));
  EXPECT_EQ(tokenizer->Decode(Ids{kFirstByte + 0xc3, kFirstByte + 0xa9}), "\xc3\xa9");
}

TEST(SpmTokenizerTest, WithoutByteTokensAnUnknownCharacterIsOneUnknownToken) {
  const auto tokenizer = Make(SpmVocabulary(false));
  EXPECT_EQ(tokenizer->Encode("b\xc3\xa9", false, false), (Ids{kSpace, kB, 0}));
  EXPECT_EQ(tokenizer->Decode(Ids{0}), "");
}

TEST(SpmTokenizerTest, MalformedByteTokensAreNamed) {
  for (const char* text : {"<0x4>", "<0xZZ>", "41", "<0x+1>", "<0x 1>"}) {
    GgufBuilder builder = SpmVocabulary(false);
    builder.Strings("tokenizer.ggml.tokens", {"a", text}).Array<float>("tokenizer.ggml.scores", 6, {0, 0});
    builder.Array<int32_t>("tokenizer.ggml.token_type", 5, {1, 6});
    for (const char* key : {"bos", "eos", "unknown"})
      builder.U32(std::string("tokenizer.ggml.") + key + "_token_id", 0);
    const std::string bytes = builder.Build();
    const auto file = GgufFile::Parse("f", test::AsBytes(bytes));
    ASSERT_TRUE(file.ok()) << file.status();
    const auto tokenizer = Tokenizer::FromGguf(**file);
    EXPECT_EQ(tokenizer.status().message(),
              "f: key tokenizer.ggml.tokens[1] is a byte token but not of the form <0x41>")
        << text;
  }
}

TEST(SpmTokenizerTest, TheLongestPromptOfOneLetterIsTokenizedInOneGo) {
  const auto tokenizer = Make(SpmVocabulary(true));
  EXPECT_EQ(tokenizer->Encode(std::string(kMaxPromptBytes, 'a'), false, false).size(), kMaxPromptBytes);
  EXPECT_EQ(tokenizer->Encode(std::string(kMaxPromptBytes, ' '), false, false).size(), kMaxPromptBytes + 1);
}

}  // namespace
}  // namespace tidepool
