// The bytes of every token of a model, for log-probabilities. Immutable.
#ifndef TIDEPOOL_CLIENT_HTTP_VOCABULARY_H_
#define TIDEPOOL_CLIENT_HTTP_VOCABULARY_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "client/generation_client.h"

namespace tidepool::http {

class Vocabulary {
 public:
  // Asks the worker; blocks.
  static absl::StatusOr<std::shared_ptr<const Vocabulary>> Load(GenerationClient& client, int tokens);
  // lengths: bytes of `text` that each token has, in order. InvalidArgument when they are not the text's.
  static absl::StatusOr<std::shared_ptr<const Vocabulary>> Make(std::string text, const std::vector<int32_t>& lengths);

  // May end inside a character. Empty for what is no token.
  std::string_view Piece(int32_t token) const;

 private:
  std::string text_;
  std::vector<size_t> ends_;  // [tokens], in text_
};

}  // namespace tidepool::http

#endif  // TIDEPOOL_CLIENT_HTTP_VOCABULARY_H_
