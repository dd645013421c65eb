#include "worker/model/spm_tokenizer.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <numeric>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "worker/model/symbol_merger.h"
#include "worker/model/unicode_text.h"
#include "worker/model/vocabulary.h"

namespace tidepool {
namespace {

// The vocabulary writes a space as U+2581.
constexpr std::string_view kSpaceMark = "\xe2\x96\x81";

// The byte that a token like <0x41> stands for.
std::optional<uint8_t> ByteNamed(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return std::nullopt;
  uint8_t byte = 0;
  const auto [end, error] = std::from_chars(text.data() + 3, text.data() + 5, byte, 16);
  if (error != std::errc() || end != text.data() + 5) return std::nullopt;
  return byte;
}

class SpmTokenizer final : public Tokenizer {
 public:
  SpmTokenizer(Vocabulary vocabulary, bool add_space_prefix)
      : vocabulary_(std::move(vocabulary)), add_space_prefix_(add_space_prefix) {}
  absl::Status ReadScores(const GgufFile& file);
  absl::Status ReadBytes(const GgufFile& file);

  std::vector<int32_t> EncodeSegments(absl::Span<const TextSegment> segments, bool add_special) const override;
  std::string Piece(int32_t token, bool render_special) const override;
  int vocabulary() const override { return vocabulary_.size(); }
  bool is_special(int32_t token) const override { return InRange(token) && vocabulary_.is_special(token); }
  std::optional<int32_t> bos() const override { return vocabulary_.bos(); }
  std::optional<int32_t> eos() const override { return vocabulary_.eos(); }
  const std::vector<int32_t>& end_of_generation() const override { return vocabulary_.end_of_generation(); }

 private:
  bool InRange(int32_t token) const { return token >= 0 && token < vocabulary_.size(); }
  void EncodeMarked(std::string_view text, std::vector<int32_t>* tokens) const;
  void AppendBytes(std::string_view bytes, std::vector<int32_t>* tokens) const;

  Vocabulary vocabulary_;
  const bool add_space_prefix_;
  std::vector<uint32_t> ranks_;             // by token; a higher score is a smaller rank, equal scores have equal ranks
  size_t longest_ = 0;                      // bytes of the longest token
  std::array<int32_t, 256> byte_tokens_{};  // <0x00> ... <0xFF>; -1 where the vocabulary has none
  std::vector<int16_t> byte_of_;            // by token; -1 unless it is a byte token
};

absl::Status SpmTokenizer::ReadScores(const GgufFile& file) {
  constexpr char kKey[] = "tokenizer.ggml.scores";
  TP_ASSIGN_OR_RETURN(const std::vector<float> scores, file.Floats(kKey));
  if (scores.size() != static_cast<size_t>(vocabulary_.size())) {
    return file.Error(
        absl::StatusCode::kInvalidArgument,
        absl::StrCat("key ", kKey, " has ", scores.size(), " elements for ", vocabulary_.size(), " tokens"));
  }
  std::vector<int32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return scores[a] > scores[b]; });
  ranks_.resize(scores.size());
  for (size_t i = 0; i < order.size(); ++i) {
    const bool tied = i > 0 && scores[order[i]] == scores[order[i - 1]];
    ranks_[order[i]] = tied ? ranks_[order[i - 1]] : static_cast<uint32_t>(i);
    longest_ = std::max(longest_, vocabulary_.text(order[i]).size());
  }
  return absl::OkStatus();
}

absl::Status SpmTokenizer::ReadBytes(const GgufFile& file) {
  byte_tokens_.fill(-1);
  byte_of_.assign(vocabulary_.size(), -1);
  for (int32_t token = 0; token < vocabulary_.size(); ++token) {
    if (vocabulary_.kind(token) != TokenKind::kByte) continue;
    const std::optional<uint8_t> byte = ByteNamed(vocabulary_.text(token));
    if (!byte) {
      return file.Error(
          absl::StatusCode::kInvalidArgument,
          absl::StrCat("key tokenizer.ggml.tokens[", token, "] is a byte token but not of the form <0x41>"));
    }
    byte_of_[token] = *byte;
    if (byte_tokens_[*byte] < 0) byte_tokens_[*byte] = token;
  }
  return absl::OkStatus();
}

void SpmTokenizer::AppendBytes(std::string_view bytes, std::vector<int32_t>* tokens) const {
  const bool complete =
      std::all_of(bytes.begin(), bytes.end(), [&](char byte) { return byte_tokens_[static_cast<uint8_t>(byte)] >= 0; });
  if (complete) {
    for (const char byte : bytes) tokens->push_back(byte_tokens_[static_cast<uint8_t>(byte)]);
  } else if (vocabulary_.unknown()) {
    tokens->push_back(*vocabulary_.unknown());
  }
}

void SpmTokenizer::EncodeMarked(std::string_view text, std::vector<int32_t>* tokens) const {
  SymbolMerger merger;
  for (size_t at = 0; at < text.size();) {
    const size_t size = CharacterAt(text, at).size;
    merger.Add(static_cast<uint32_t>(at), static_cast<uint32_t>(size), vocabulary_.Find(text.substr(at, size)));
    at += size;
  }
  merger.Merge([&](const Symbol& left, const Symbol& right) {
    const size_t size = size_t{left.size} + right.size;
    if (size > longest_) return SymbolMerger::Merged{};
    const int32_t token = vocabulary_.Find(text.substr(left.begin, size));
    return token < 0 ? SymbolMerger::Merged{} : SymbolMerger::Merged{ranks_[token], token};
  });
  merger.ForEach([&](const Symbol& symbol) {
    if (symbol.token >= 0) {
      tokens->push_back(symbol.token);
    } else {
      AppendBytes(text.substr(symbol.begin, symbol.size), tokens);
    }
  });
}

std::vector<int32_t> SpmTokenizer::EncodeSegments(absl::Span<const TextSegment> segments, bool add_special) const {
  std::vector<int32_t> tokens;
  if (add_special && vocabulary_.add_bos() && vocabulary_.bos()) tokens.push_back(*vocabulary_.bos());
  bool prefix = add_space_prefix_;  // at the start of the text and after each special token
  const auto encode_plain = [&](std::string_view plain) {
    std::string marked(prefix ? kSpaceMark : std::string_view());
    marked.reserve(plain.size() + 16);
    for (const char c : plain) {
      if (c == ' ') {
        marked.append(kSpaceMark);
      } else {
        marked.push_back(c);
      }
    }
    EncodeMarked(marked, &tokens);
    prefix = false;
  };
  vocabulary_.Split(segments, encode_plain, [&](int32_t token) {
    tokens.push_back(token);
    prefix = add_space_prefix_;
  });
  if (add_special && vocabulary_.add_eos() && vocabulary_.eos()) tokens.push_back(*vocabulary_.eos());
  return tokens;
}

std::string SpmTokenizer::Piece(int32_t token, bool render_special) const {
  if (!InRange(token)) return "";
  const std::string& text = vocabulary_.text(token);
  if (vocabulary_.is_special(token)) return render_special ? text : "";
  if (byte_of_[token] >= 0) return std::string(1, static_cast<char>(byte_of_[token]));
  if (vocabulary_.kind(token) == TokenKind::kUserDefined) return text;
  std::string piece;
  for (size_t at = 0; at < text.size();) {
    if (std::string_view(text).substr(at, kSpaceMark.size()) == kSpaceMark) {
      piece.push_back(' ');
      at += kSpaceMark.size();
    } else {
      piece.push_back(text[at++]);
    }
  }
  return piece;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> ReadSpmTokenizer(const GgufFile& file) {
  TP_ASSIGN_OR_RETURN(Vocabulary vocabulary, Vocabulary::Read(file, {.add_bos = true}));
  TP_ASSIGN_OR_RETURN(const bool add_space_prefix, file.BoolOr("tokenizer.ggml.add_space_prefix", true));
  auto tokenizer = std::make_unique<SpmTokenizer>(std::move(vocabulary), add_space_prefix);
  TP_RETURN_IF_ERROR(tokenizer->ReadScores(file));
  TP_RETURN_IF_ERROR(tokenizer->ReadBytes(file));
  return tokenizer;
}

}  // namespace tidepool
