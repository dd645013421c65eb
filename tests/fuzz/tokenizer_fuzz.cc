// Any bytes as text: tokens are in range, decode to the text, and are never control tokens where those do not count.
#include <algorithm>
#include <memory>
#include <string>
#include <string_view>

#include "base/check.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/worker/model/gguf_builder.h"
#include "worker/model/gguf_file.h"
#include "worker/model/pre_tokenizer.h"
#include "worker/model/tokenizer.h"

namespace tidepool {
namespace {

constexpr const char* kPreTokenizers[] = {"gpt-2", "smollm", "llama-bpe", "qwen2"};

std::unique_ptr<Tokenizer> ByteTokenizer(const char* pre_tokenizer) {
  test::GgufBuilder builder;
  test::AddByteVocabulary(pre_tokenizer, &builder);
  const std::string bytes = builder.Build();
  return std::move(*Tokenizer::FromGguf(**GgufFile::Parse("fuzz", test::AsBytes(bytes))));
}

void CheckText(const Tokenizer& tokenizer, std::string_view text, bool composes) {
  const std::vector<int32_t> plain = tokenizer.Encode(text, /*parse_special=*/false, /*add_special=*/false);
  for (const int32_t token : plain) {
    TIDEPOOL_CHECK(token >= 0 && token < tokenizer.vocabulary());
    TIDEPOOL_CHECK(!tokenizer.is_special(token));
  }
  if (!composes) TIDEPOOL_CHECK(tokenizer.Decode(plain) == text);
  const std::vector<int32_t> parsed = tokenizer.Encode(text, true, false);
  if (!composes) TIDEPOOL_CHECK(tokenizer.Decode(parsed, /*render_special=*/true) == text);

  const size_t half = text.size() / 2;
  const std::vector<TextSegment> segments = {{std::string(text.substr(0, half)), true},
                                             {std::string(text.substr(half)), false}};
  const std::vector<int32_t> mixed = tokenizer.EncodeSegments(segments, false);
  if (!composes) TIDEPOOL_CHECK(tokenizer.Decode(mixed, true) == text);
}

void RunInput(const uint8_t* data, size_t size) {
  static const std::vector<std::unique_ptr<Tokenizer>>& tokenizers = *[] {
    auto* made = new std::vector<std::unique_ptr<Tokenizer>>();
    for (const char* name : kPreTokenizers) made->push_back(ByteTokenizer(name));
    return made;
  }();
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (size_t i = 0; i < tokenizers.size(); ++i) {
    std::string joined;
    SplitText(*PreTokenizerNamed(kPreTokenizers[i]), text, [&](std::string_view piece) {
      TIDEPOOL_CHECK(!piece.empty());
      joined += piece;
    });
    TIDEPOOL_CHECK(joined == text);
    CheckText(*tokenizers[i], text, /*composes=*/std::string_view(kPreTokenizers[i]) == "qwen2");
  }
}

}  // namespace

namespace test {

std::vector<std::string> FuzzSeeds() {
  const std::string scripts =
      "\xe4\xbd\xa0\xe5\xa5\xbd \xd9\xa3\xd9\xa4 e\xcc\x81 \xf0\x9f\x98\x80\xe2\x80\x8d\xf0\x9f\x91\xa9 "
      "\xc2\xa0\xe3\x80\x80";
  return {"Hello, world! It's 12345 o'clock.\r\n\n  indented\t text  ", "<|im_start|>user\nab<tool>ab<|im_end|>\n",
          scripts, "'S'T'rE'VE'm'Ll'd 's", std::string("\0\x01\xff\xfe\xed\xa0\x80\xf4\x90\x80\x80\xc0\x80", 13)};
}

}  // namespace test
}  // namespace tidepool

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tidepool::RunInput(data, size);
  return 0;
}
