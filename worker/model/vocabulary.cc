#include "worker/model/vocabulary.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "worker/model/gguf_file.h"

namespace tidepool {
namespace {

constexpr size_t kMaxTokens = 1 << 22;

// Turn and text ends of the supported families. A file names only one of its own as eos, but models emit the others
// too.
constexpr std::string_view kEndTexts[] = {"<|eot_id|>", "<|im_end|>", "<|endoftext|>", "<|end_of_text|>", "</s>"};

absl::StatusOr<std::optional<int32_t>> ReadId(const GgufFile& file, const char* key, int64_t vocabulary) {
  if (!file.Has(key)) return std::optional<int32_t>();
  TP_ASSIGN_OR_RETURN(const int64_t id, file.Integer(key, 0, vocabulary - 1));
  return std::optional<int32_t>(static_cast<int32_t>(id));
}

}  // namespace

absl::Status Vocabulary::ReadKinds(const GgufFile& file) {
  constexpr char kKey[] = "tokenizer.ggml.token_type";
  kinds_.assign(texts_.size(), TokenKind::kNormal);
  if (!file.Has(kKey)) return absl::OkStatus();
  TP_ASSIGN_OR_RETURN(const std::vector<int64_t> kinds, file.Integers(kKey));
  if (kinds.size() != texts_.size()) {
    return file.Error(absl::StatusCode::kInvalidArgument,
                      absl::StrCat("key ", kKey, " has ", kinds.size(), " elements for ", texts_.size(), " tokens"));
  }
  for (size_t i = 0; i < kinds.size(); ++i) {
    if (kinds[i] < 1 || kinds[i] > 6) {
      return file.Error(absl::StatusCode::kInvalidArgument,
                        absl::StrCat("key ", kKey, "[", i, "] is ", kinds[i], "; allowed 1 to 6"));
    }
    kinds_[i] = static_cast<TokenKind>(kinds[i]);
  }
  return absl::OkStatus();
}

void Vocabulary::IndexTexts() {
  index_.reserve(texts_.size());
  for (int32_t token = 0; token < size(); ++token) {
    const std::string& text = texts_[token];
    if (text.empty()) continue;
    switch (kinds_[token]) {
      case TokenKind::kUserDefined:
        user_defined_.Add(text, token);
        all_special_.Add(text, token);
        index_.try_emplace(text, token);
        break;
      case TokenKind::kControl:
      case TokenKind::kUnknown: all_special_.Add(text, token); break;
      case TokenKind::kNormal:
      case TokenKind::kUnused: index_.try_emplace(text, token); break;
      case TokenKind::kByte: break;
    }
  }
}

absl::Status Vocabulary::ReadSpecialIds(const GgufFile& file, Defaults defaults) {
  TP_ASSIGN_OR_RETURN(bos_, ReadId(file, "tokenizer.ggml.bos_token_id", size()));
  TP_ASSIGN_OR_RETURN(eos_, ReadId(file, "tokenizer.ggml.eos_token_id", size()));
  TP_ASSIGN_OR_RETURN(unknown_, ReadId(file, "tokenizer.ggml.unknown_token_id", size()));
  TP_ASSIGN_OR_RETURN(add_bos_, file.BoolOr("tokenizer.ggml.add_bos_token", defaults.add_bos));
  TP_ASSIGN_OR_RETURN(add_eos_, file.BoolOr("tokenizer.ggml.add_eos_token", defaults.add_eos));
  std::vector<int32_t> ends;
  if (eos_) ends.push_back(*eos_);
  for (const char* key : {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
    TP_ASSIGN_OR_RETURN(const std::optional<int32_t> id, ReadId(file, key, size()));
    if (id) ends.push_back(*id);
  }
  for (int32_t token = 0; token < size(); ++token) {
    if (kinds_[token] != TokenKind::kControl && kinds_[token] != TokenKind::kUserDefined) continue;
    if (std::find(std::begin(kEndTexts), std::end(kEndTexts), texts_[token]) != std::end(kEndTexts))
      ends.push_back(token);
  }
  std::sort(ends.begin(), ends.end());
  ends.erase(std::unique(ends.begin(), ends.end()), ends.end());
  end_of_generation_ = std::move(ends);
  return absl::OkStatus();
}

absl::StatusOr<Vocabulary> Vocabulary::Read(const GgufFile& file, Defaults defaults) {
  Vocabulary vocabulary;
  TP_ASSIGN_OR_RETURN(const std::vector<std::string_view> tokens, file.Strings("tokenizer.ggml.tokens"));
  if (tokens.empty() || tokens.size() > kMaxTokens) {
    return file.Error(absl::StatusCode::kInvalidArgument, absl::StrCat("key tokenizer.ggml.tokens has ", tokens.size(),
                                                                       " elements; allowed 1 to ", kMaxTokens));
  }
  vocabulary.texts_.assign(tokens.begin(), tokens.end());
  TP_RETURN_IF_ERROR(vocabulary.ReadKinds(file));
  vocabulary.IndexTexts();
  TP_RETURN_IF_ERROR(vocabulary.ReadSpecialIds(file, defaults));
  return vocabulary;
}

void Vocabulary::Split(absl::Span<const TextSegment> segments, absl::FunctionRef<void(std::string_view)> plain,
                       absl::FunctionRef<void(int32_t)> found) const {
  std::string joined;
  if (segments.size() != 1) {
    for (const TextSegment& segment : segments) joined += segment.text;
  }
  const std::string_view text = segments.size() == 1 ? std::string_view(segments[0].text) : joined;
  TIDEPOOL_CHECK(text.size() <=
                 static_cast<size_t>(std::numeric_limits<int32_t>::max()));  // the API allows kMaxPromptBytes
  size_t at = 0, stretch = 0, segment_end = 0;
  for (const TextSegment& segment : segments) {
    segment_end += segment.text.size();
    const SpecialTokens& special = segment.parse_special ? all_special_ : user_defined_;
    while (at < segment_end) {
      int32_t token = -1;
      const size_t size = special.LongestAt(text.substr(0, segment_end), at, &token);
      if (size == 0) {
        ++at;
        continue;
      }
      if (at > stretch) plain(text.substr(stretch, at - stretch));
      found(token);
      at += size;
      stretch = at;
    }
  }
  if (stretch < text.size()) plain(text.substr(stretch));
}

int32_t Vocabulary::Find(std::string_view text) const {
  const auto it = index_.find(absl::string_view(text.data(), text.size()));  // the packaged Abseil has its own type
  return it == index_.end() ? -1 : it->second;
}

}  // namespace tidepool
