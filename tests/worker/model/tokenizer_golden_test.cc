// Splitters and tokenizers against independent libraries (make_tokenizer_golden.py): `tokenizers` and `sentencepiece`.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/support/paths.h"
#include "worker/model/gguf_file.h"
#include "worker/model/pre_tokenizer.h"
#include "worker/model/tokenizer.h"

namespace tidepool {
namespace {

using Json = nlohmann::json;

Json Golden(const std::string& name) { return Json::parse(test::ReadFile(test::DataPath("tokenizers/" + name))); }

std::unique_ptr<Tokenizer> Load(const std::string& name) {
  const auto file = GgufFile::Open(test::DataPath("tokenizers/" + name));
  if (!file.ok()) throw std::runtime_error(file.status().ToString());
  auto tokenizer = Tokenizer::FromGguf(**file);
  if (!tokenizer.ok()) throw std::runtime_error(tokenizer.status().ToString());
  return std::move(*tokenizer);
}

class SplitTest : public testing::TestWithParam<std::string> {};

TEST_P(SplitTest, PiecesAreThoseOfTheFamilysPattern) {
  const Json cases = Golden("pre_tokenizers.json")[GetParam()];
  ASSERT_GT(cases.size(), 500u);
  for (const Json& row : cases) {
    const std::string text = row[0];
    std::vector<std::string> pieces;
    SplitText(*PreTokenizerNamed(GetParam()), text, [&](std::string_view piece) { pieces.emplace_back(piece); });
    EXPECT_EQ(pieces, row[1].get<std::vector<std::string>>()) << row[0];
  }
}

INSTANTIATE_TEST_SUITE_P(All, SplitTest, testing::Values("gpt-2", "smollm", "llama-bpe", "qwen2"),
                         [](const auto& info) {
                           std::string name = info.param;
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

TEST(BpeGoldenTest, EveryTextGivesTheLibrarysTokens) {
  const std::unique_ptr<Tokenizer> tokenizer = Load("bpe.gguf");
  int whole_words = 0;
  for (const Json& row : Golden("bpe.json")) {
    const std::string text = row[0];
    const std::vector<int32_t> ids = row[1];
    EXPECT_EQ(tokenizer->Encode(text, false, false), ids) << row[0];
    EXPECT_EQ(tokenizer->Decode(ids), text);
    whole_words += std::count(ids.begin(), ids.end(), tokenizer->vocabulary() - 1);  // no merges lead to the last token
  }
  EXPECT_GT(whole_words, 0);
}

TEST(SpmGoldenTest, EveryTextGivesTheLibrarysTokens) {
  const std::unique_ptr<Tokenizer> tokenizer = Load("spm.gguf");
  for (const Json& row : Golden("spm.json")) {
    const std::string text = row[0];
    const std::vector<int32_t> ids = row[1];
    EXPECT_EQ(tokenizer->Encode(text, false, false), ids) << row[0];
    // The library drops the space that it put in front; we leave that to the caller, who may be in mid-text.
    EXPECT_EQ(tokenizer->Decode(ids), " " + text) << row[0];
  }
}

}  // namespace
}  // namespace tidepool
