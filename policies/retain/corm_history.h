// CORM (arXiv 2404.15949): no budget. A row stays while at least one of the last queries gave it more than its even
// share of attention, 1 / (rows that the query saw); neighbouring queries look at much the same rows, so that what none
// of them needed the next ones will hardly need. The last rows always stay.
//
// How many rows that makes is not known beforehand: `most` is the cap that a device budget needs.
#ifndef TIDEPOOL_POLICIES_RETAIN_CORM_HISTORY_H_
#define TIDEPOOL_POLICIES_RETAIN_CORM_HISTORY_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace tidepool {

// The resident rows of one (layer, kv head), in ascending position.
class CormHistory {
 public:
  // Queries that are remembered; the paper's experiments use 256.
  explicit CormHistory(int queries);

  // One query has attended to the first `visible` rows, in a prompt fewer than there are; rows beyond those known so
  // far are new. attention: [group][visible], of each query head of the kv head. A row matters when it matters to one.
  void Observe(absl::Span<const float> attention, int visible);

  // Of the first `past` rows: the number of the last query that a row mattered to, from 0 for the newest downwards;
  // minus infinity where it was none of the last `queries`. Where there is no room for all that matter, those stay that
  // mattered last.
  std::vector<float> Scores(int past) const;

  // Only these rows stay (ascending).
  void Keep(absl::Span<const int32_t> kept);

  int rows() const { return static_cast<int>(mattered_.size()); }

 private:
  const int queries_;
  int64_t observed_ = 0;           // queries so far
  std::vector<int64_t> mattered_;  // by row: number of the last query that it mattered to, from 1 on; 0: none yet
};

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_RETAIN_CORM_HISTORY_H_
