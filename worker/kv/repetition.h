// A context as the model is made to repeat it (KVzip, arXiv 2505.23416): piece by piece, each asked for in words and
// then written out, at the positions after the context. What is computed for it is thrown away, but for what its
// queries tell about the rows of the context (ScoreMethod::RepeatedTokens).
#ifndef TIDEPOOL_WORKER_KV_REPETITION_H_
#define TIDEPOOL_WORKER_KV_REPETITION_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "policies/retain/score_method.h"

namespace tidepool {

// Token ids, as the method's authors have them; none of a chat template.
struct RepetitionWords {
  std::vector<int32_t> first;  // asks for the beginning of the context
  std::vector<int32_t> next;   // asks for the part that follows the last tokens of another
  std::vector<int32_t> end;    // of either
};

class Repetition {
 public:
  // Of context[from ..]. words and context outlive it; `piece_tokens` at a time, >= 1.
  Repetition(const RepetitionWords& words, absl::Span<const int32_t> context, int32_t from, int32_t piece_tokens);

  bool done() const { return piece_.first == piece_.last; }
  // Under way, unless done.
  const RepeatedPiece& piece() const { return piece_; }
  // What is left of it to be computed; the first of these stands at position().
  absl::Span<const int32_t> waiting() const { return absl::MakeConstSpan(tokens_).subspan(computed_); }
  int32_t position() const { return piece_.repetition + computed_; }
  // `count` of them have been. True: they were the last of the piece, and the next one is under way.
  bool Advance(int32_t count);

  // Of a piece of so many tokens, with its words: what it takes on the device for a while.
  static int32_t MostTokens(const RepetitionWords& words, int32_t piece_tokens);

 private:
  void StartPiece(int32_t first);

  const RepetitionWords& words_;
  const absl::Span<const int32_t> context_;
  const int32_t piece_tokens_;
  RepeatedPiece piece_;
  std::vector<int32_t> tokens_;
  int32_t computed_ = 0;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_REPETITION_H_
