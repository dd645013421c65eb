#include "worker/model/tokenizer.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/model/bpe_tokenizer.h"
#include "worker/model/gguf_file.h"
#include "worker/model/spm_tokenizer.h"

namespace tidepool {

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromGguf(const GgufFile& file) {
  TP_ASSIGN_OR_RETURN(const std::string_view model, file.String("tokenizer.ggml.model"));
  if (model == "gpt2") return ReadBpeTokenizer(file);
  if (model == "llama") return ReadSpmTokenizer(file);
  return file.Error(absl::StatusCode::kUnimplemented,
                    absl::StrCat("key tokenizer.ggml.model is \"", std::string(model.substr(0, 60)),
                                 "\"; supported are gpt2 (byte-level BPE) and llama (SentencePiece BPE)"));
}

std::vector<int32_t> Tokenizer::Encode(std::string_view text, bool parse_special, bool add_special) const {
  const TextSegment segment{std::string(text), parse_special};
  return EncodeSegments({&segment, 1}, add_special);
}

std::string Tokenizer::Decode(absl::Span<const int32_t> tokens, bool render_special) const {
  std::string text;
  for (const int32_t token : tokens) text += Piece(token, render_special);
  return text;
}

}  // namespace tidepool
