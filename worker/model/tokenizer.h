// Text to token ids and back, from a GGUF vocabulary: byte-level BPE (tokenizer.ggml.model gpt2) or SentencePiece BPE
// (llama). Immutable and thread-safe.
#ifndef TIDEPOOL_WORKER_MODEL_TOKENIZER_H_
#define TIDEPOOL_WORKER_MODEL_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/model/text_segment.h"

namespace tidepool {

class GgufFile;

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Reads tokenizer.ggml.*. Unimplemented naming the model or pre-tokenizer that is not known.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> FromGguf(const GgufFile& file);

  // parse_special: the text's special tokens are recognised (templates); else they are plain text (user input).
  // add_bos / add_eos of the file are applied only when add_special is true.
  std::vector<int32_t> Encode(std::string_view text, bool parse_special, bool add_special) const;
  // The same for text of mixed trust, joined: what chat prompts should be encoded with (ChatTemplate::RenderSegments).
  virtual std::vector<int32_t> EncodeSegments(absl::Span<const TextSegment> segments, bool add_special) const = 0;
  // The bytes of one token; empty for control tokens unless `render_special`. May be part of a UTF-8 character.
  virtual std::string Piece(int32_t token, bool render_special = false) const = 0;
  std::string Decode(absl::Span<const int32_t> tokens, bool render_special = false) const;

  virtual int vocabulary() const = 0;
  virtual bool is_special(int32_t token) const = 0;
  virtual std::optional<int32_t> bos() const = 0;
  virtual std::optional<int32_t> eos() const = 0;
  // All tokens that end a generation: eos, eot and what the family uses (<|eot_id|>, <|im_end|>, <|endoftext|>).
  virtual const std::vector<int32_t>& end_of_generation() const = 0;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_MODEL_TOKENIZER_H_
