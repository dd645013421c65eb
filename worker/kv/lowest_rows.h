// The rows of a head that have received least attention, by its column sums, of those that are old enough to leave.
//
// They are not looked for among all rows in each step, whose sums are far. Sums only grow, so that rows that were above
// a bound once stay above it: those at the bound or below it are listed, and rows that have become old enough since.
// When all of these are above it, all rows are looked at again.
#ifndef TIDEPOOL_WORKER_KV_LOWEST_ROWS_H_
#define TIDEPOOL_WORKER_KV_LOWEST_ROWS_H_

#include <cstddef>
#include <cstdint>

#include "absl/container/inlined_vector.h"
#include "absl/types/span.h"
#include "policies/retain/compression_spec.h"
#include "worker/kv/resident_rows.h"

namespace tidepool {

class LowestRows {
 public:
  // Rows [first, end) of the head's order: those of which some leave.
  struct Past {
    int32_t first = 0, end = 0;
  };

  // Fills `slots` with those of the rows of `past` with the lowest scores, as ColumnSumsOf has them, the lowest first,
  // of equal ones that with the highest position; not-a-number is lowest. `past` has as many.
  void Find(const HeadRows& head, GroupReduce reduce, Past past, absl::Span<int32_t> slots);
  // The lowest one, if sums have not changed since Find.
  int32_t Guess(const HeadRows& head, GroupReduce reduce, Past past);
  // In each step, once its row is there. Rows that have come or gone otherwise are noticed by their number; but where
  // sums begin anew, or rows are selected or moved by other means, Clear is to be called.
  void Follow(const HeadRows& head);
  // The row in `slot` has been removed.
  void Left(int32_t slot);
  void Clear();

 private:
  struct Candidate {
    int32_t slot = -1, position = -1;
    float settled = 0;  // of its sums, those that steps do not add to
    float score = 0;    // when it was looked at
  };
  static constexpr size_t kListed = 8;  // at a time, and those that have become old enough since
  class Scores;

  // Lists the lowest of `past`, at least `count`.
  void List(const HeadRows& head, const Scores& scores, Past past, size_t count);
  // Lists those that have become old enough.
  void ListNew(const HeadRows& head, const Scores& scores, Past past);
  // The lowest that are listed and in `past`. False: they may be others.
  bool Choose(const HeadRows& head, Past past, absl::Span<int32_t> slots) const;

  int32_t rows_ = -1;  // of the head after the last step, less those that have left
  bool any_listed_ = false;
  float bound_ = 0;                                // what has been looked at and is not listed is above it
  int32_t first_position_ = 0, end_position_ = 0;  // of what has been looked at
  absl::InlinedVector<Candidate, 2 * kListed> candidates_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_LOWEST_ROWS_H_
