// KVzip (arXiv 2505.23416; snu-mllab/KVzip, kvzip_press.py of NVIDIA's kvpress): the model is made to repeat its
// context piece by piece; a row is worth the most attention that it gets from the queries that repeat its piece. So it
// says what is needed to write the context again, whatever will be asked about it.
#ifndef TIDEPOOL_POLICIES_RETAIN_REPETITION_SCORES_H_
#define TIDEPOOL_POLICIES_RETAIN_REPETITION_SCORES_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace tidepool {

// Rows of a head while a piece is repeated.
struct RepeatedRows {
  int rows = 0;   // all: of the context, then of the repetition so far
  int sinks = 0;  // first rows, which take part in the softmax beside the piece
  int first = 0;  // those of the piece are rows first to last - 1
  int last = 0;
  int repetition = 0;  // first row of the repetition
};

// By row of the piece: the largest of its probabilities over the queries, where the softmax runs over sinks, piece and
// repetition only, as in the code: so pieces of a long context compare with those of a short one. attention:
// [queries][rows], softmax over all rows, which differs by a factor for each query. A query that attends to none of
// these rows says nothing.
std::vector<float> RepetitionScores(absl::Span<const float> attention, const RepeatedRows& rows);

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_RETAIN_REPETITION_SCORES_H_
