#include "worker/model/bpe_tokenizer.h"

#include <array>
#include <limits>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "worker/model/byte_alphabet.h"
#include "worker/model/pre_tokenizer.h"
#include "worker/model/symbol_merger.h"
#include "worker/model/unicode_text.h"
#include "worker/model/vocabulary.h"

namespace tidepool {
namespace {

uint64_t Pair(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

class BpeTokenizer final : public Tokenizer {
 public:
  BpeTokenizer(Vocabulary vocabulary, PreTokenizer pre_tokenizer)
      : vocabulary_(std::move(vocabulary)), pre_tokenizer_(pre_tokenizer) {
    MakePieces();
  }
  absl::Status ReadMerges(const GgufFile& file);

  std::vector<int32_t> EncodeSegments(absl::Span<const TextSegment> segments, bool add_special) const override;
  std::string Piece(int32_t token, bool render_special) const override;
  int vocabulary() const override { return vocabulary_.size(); }
  bool is_special(int32_t token) const override { return InRange(token) && vocabulary_.is_special(token); }
  std::optional<int32_t> bos() const override { return vocabulary_.bos(); }
  std::optional<int32_t> eos() const override { return vocabulary_.eos(); }
  const std::vector<int32_t>& end_of_generation() const override { return vocabulary_.end_of_generation(); }

 private:
  bool InRange(int32_t token) const { return token >= 0 && token < vocabulary_.size(); }
  void MakePieces();
  void EncodePiece(std::string_view piece, SymbolMerger* merger, std::vector<int32_t>* tokens) const;

  Vocabulary vocabulary_;
  const PreTokenizer pre_tokenizer_;
  std::vector<std::string> pieces_;         // raw bytes of each token
  std::array<int32_t, 256> byte_tokens_{};  // -1: no token, the byte is dropped
  absl::flat_hash_map<uint64_t, SymbolMerger::Merged> merges_;
};

void BpeTokenizer::MakePieces() {
  pieces_.reserve(vocabulary_.size());
  for (int32_t token = 0; token < vocabulary_.size(); ++token) {
    const std::string& text = vocabulary_.text(token);
    const TokenKind kind = vocabulary_.kind(token);
    // Special and added tokens are stored as their literal text, the others in the byte alphabet.
    const bool literal = vocabulary_.is_special(token) || kind == TokenKind::kUserDefined;
    pieces_.push_back(literal ? text : LettersToBytes(text).value_or(text));
  }
  for (int byte = 0; byte < 256; ++byte) {
    const char raw = static_cast<char>(byte);
    byte_tokens_[byte] = vocabulary_.Find(BytesToLetters({&raw, 1}));
  }
}

absl::Status BpeTokenizer::ReadMerges(const GgufFile& file) {
  constexpr char kKey[] = "tokenizer.ggml.merges";
  if (!file.Has(kKey)) return absl::OkStatus();  // a vocabulary of single bytes and whole tokens
  TP_ASSIGN_OR_RETURN(const std::vector<std::string_view> merges, file.Strings(kKey));
  if (merges.size() > std::numeric_limits<uint32_t>::max()) {
    return file.Error(absl::StatusCode::kInvalidArgument,
                      absl::StrCat("key ", kKey, " has ", merges.size(), " elements"));
  }
  merges_.reserve(merges.size());
  std::string whole;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const std::string_view merge = merges[rank];
    const size_t space = merge.find(' ', 1);  // a token that is a space itself would stand first
    if (space == std::string_view::npos) {
      return file.Error(absl::StatusCode::kInvalidArgument,
                        absl::StrCat("key ", kKey, "[", rank, "] is not two tokens separated by a space"));
    }
    const std::string_view left = merge.substr(0, space), right = merge.substr(space + 1);
    whole.assign(left).append(right);
    const int32_t left_token = vocabulary_.Find(left), right_token = vocabulary_.Find(right),
                  token = vocabulary_.Find(whole);
    if (left_token < 0 || right_token < 0 || token < 0) {
      return file.Error(absl::StatusCode::kInvalidArgument,
                        absl::StrCat("key ", kKey, "[", rank, "]: a part or the result is no token of the vocabulary"));
    }
    merges_.try_emplace(Pair(left_token, right_token), SymbolMerger::Merged{static_cast<uint32_t>(rank), token});
  }
  return absl::OkStatus();
}

void BpeTokenizer::EncodePiece(std::string_view piece, SymbolMerger* merger, std::vector<int32_t>* tokens) const {
  if (pre_tokenizer_ == PreTokenizer::kLlama3) {  // whole tokens first, also those that no merges lead to
    const int32_t token = vocabulary_.Find(BytesToLetters(piece));
    if (token >= 0) {
      tokens->push_back(token);
      return;
    }
  }
  merger->Clear();
  // Bytes without a token vanish before the merges, so that their neighbours meet, as in the `tokenizers` library.
  for (size_t i = 0; i < piece.size(); ++i) {
    const int32_t token = byte_tokens_[static_cast<uint8_t>(piece[i])];
    if (token >= 0) merger->Add(static_cast<uint32_t>(i), 1, token);
  }
  merger->Merge([this](const Symbol& left, const Symbol& right) {
    const auto it = merges_.find(Pair(left.token, right.token));
    return it == merges_.end() ? SymbolMerger::Merged{} : it->second;
  });
  merger->ForEach([tokens](const Symbol& symbol) { tokens->push_back(symbol.token); });
}

std::vector<int32_t> BpeTokenizer::EncodeSegments(absl::Span<const TextSegment> segments, bool add_special) const {
  std::vector<int32_t> tokens;
  SymbolMerger merger;
  if (add_special && vocabulary_.add_bos() && vocabulary_.bos()) tokens.push_back(*vocabulary_.bos());
  const auto encode_plain = [&](std::string_view plain) {
    // Qwen's tokenizer composes its input first (NFC); the others take it as it is.
    const std::string composed = pre_tokenizer_ == PreTokenizer::kQwen2 ? ComposeNfc(plain) : std::string();
    SplitText(pre_tokenizer_, pre_tokenizer_ == PreTokenizer::kQwen2 ? composed : plain,
              [&](std::string_view piece) { EncodePiece(piece, &merger, &tokens); });
  };
  vocabulary_.Split(segments, encode_plain, [&](int32_t token) { tokens.push_back(token); });
  if (add_special && vocabulary_.add_eos() && vocabulary_.eos()) tokens.push_back(*vocabulary_.eos());
  return tokens;
}

std::string BpeTokenizer::Piece(int32_t token, bool render_special) const {
  if (!InRange(token) || (vocabulary_.is_special(token) && !render_special)) return "";
  return pieces_[token];
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> ReadBpeTokenizer(const GgufFile& file) {
  TP_ASSIGN_OR_RETURN(const std::string_view name, file.StringOr("tokenizer.ggml.pre", "default"));
  const std::optional<PreTokenizer> pre_tokenizer = PreTokenizerNamed(name);
  if (!pre_tokenizer) {
    return file.Error(absl::StatusCode::kUnimplemented,
                      absl::StrCat("key tokenizer.ggml.pre is \"", std::string(name.substr(0, 60)),
                                   "\"; supported are default, gpt-2, smollm, llama-bpe, qwen2"));
  }
  const Vocabulary::Defaults defaults{.add_bos = *pre_tokenizer == PreTokenizer::kLlama3};
  TP_ASSIGN_OR_RETURN(Vocabulary vocabulary, Vocabulary::Read(file, defaults));
  auto tokenizer = std::make_unique<BpeTokenizer>(std::move(vocabulary), *pre_tokenizer);
  TP_RETURN_IF_ERROR(tokenizer->ReadMerges(file));
  return tokenizer;
}

}  // namespace tidepool
