// Puts the answers of several pods to parts of one recall together, in whatever order they come: as if one service had
// answered the whole. Not thread-safe.
#ifndef TIDEPOOL_CACHESERVICE_SHARDS_RECALL_MERGE_H_
#define TIDEPOOL_CACHESERVICE_SHARDS_RECALL_MERGE_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "cacheservice/api/block_cache.h"

namespace tidepool {

class RecallMerge {
 public:
  RecallMerge(std::vector<RowSelection> selections, size_t row_bytes);

  const RowSelection& selection(size_t index) const { return selections_[index]; }
  size_t size() const { return selections_.size(); }
  // Rows of a selection that have not come.
  uint64_t Missing(size_t index) const { return selections_[index].row_mask & ~found_[index]; }

  // `part` answers selections[indices[i]], for i in order. Rows that are there already, or were not asked for, are
  // passed over. Its found masks, rows and checksums fit one another (RecallLane checks that).
  void Add(absl::Span<const uint32_t> indices, RecalledRows part);

  // Everything that has come.
  RecalledRows Finish() &&;

 private:
  // Rows of one selection in one part.
  struct Piece {
    uint32_t part;
    uint64_t mask;     // of the rows that lie there
    size_t first_row;  // index into the part's rows
  };

  const std::vector<RowSelection> selections_;
  const size_t row_bytes_;
  std::vector<uint64_t> found_;             // [selection]
  std::vector<std::vector<Piece>> pieces_;  // [selection]
  std::vector<RecalledRows> parts_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_SHARDS_RECALL_MERGE_H_
