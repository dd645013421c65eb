// The token table of a GGUF file and what all tokenizers do with it: types, special ids, the tokens that end a
// generation.
#ifndef TIDEPOOL_WORKER_MODEL_VOCABULARY_H_
#define TIDEPOOL_WORKER_MODEL_VOCABULARY_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/model/special_tokens.h"
#include "worker/model/text_segment.h"

namespace tidepool {

class GgufFile;

// Values of tokenizer.ggml.token_type.
enum class TokenKind : uint8_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

class Vocabulary {
 public:
  // Without tokenizer.ggml.add_bos_token / add_eos_token in the file, these hold.
  struct Defaults {
    bool add_bos = false, add_eos = false;
  };
  static absl::StatusOr<Vocabulary> Read(const GgufFile& file, Defaults defaults);

  int size() const { return static_cast<int>(texts_.size()); }
  const std::string& text(int32_t token) const { return texts_[token]; }  // as in the file
  TokenKind kind(int32_t token) const { return kinds_[token]; }
  // Control and unknown tokens: never made from plain text, and not part of the output's text.
  bool is_special(int32_t token) const {
    return kinds_[token] == TokenKind::kControl || kinds_[token] == TokenKind::kUnknown;
  }
  // The first token with this text that plain text may become (normal, user defined, unused); -1 when there is none.
  int32_t Find(std::string_view text) const;

  std::optional<int32_t> bos() const { return bos_; }
  std::optional<int32_t> eos() const { return eos_; }
  std::optional<int32_t> unknown() const { return unknown_; }
  bool add_bos() const { return add_bos_; }
  bool add_eos() const { return add_eos_; }
  const std::vector<int32_t>& end_of_generation() const { return end_of_generation_; }

  // Finds the tokens that are recognised by their literal text, leftmost first, the longest of those at one place:
  // user-defined ones in all segments, control and unknown ones where parse_special; never across the end of a segment.
  // Calls found(token) for each and plain(stretch) for the text between, which is never empty and may span segments.
  void Split(absl::Span<const TextSegment> segments, absl::FunctionRef<void(std::string_view)> plain,
             absl::FunctionRef<void(int32_t)> found) const;

 private:
  absl::Status ReadKinds(const GgufFile& file);
  absl::Status ReadSpecialIds(const GgufFile& file, Defaults defaults);
  void IndexTexts();

  std::vector<std::string> texts_;
  std::vector<TokenKind> kinds_;
  absl::flat_hash_map<std::string, int32_t> index_;
  SpecialTokens user_defined_, all_special_;
  std::optional<int32_t> bos_, eos_, unknown_;
  bool add_bos_ = false, add_eos_ = false;
  std::vector<int32_t> end_of_generation_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_MODEL_VOCABULARY_H_
