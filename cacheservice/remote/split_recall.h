// Recalls that are too large for one request go out as several and come back as one.
#ifndef TIDEPOOL_CACHESERVICE_REMOTE_SPLIT_RECALL_H_
#define TIDEPOOL_CACHESERVICE_REMOTE_SPLIT_RECALL_H_

#include <cstddef>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "cacheservice/api/block_cache.h"

namespace tidepool {

// How many of `selections`, from `first` on, fit in one request. At least one unless first is the end.
size_t FitsOneRequest(const std::vector<RowSelection>& selections, size_t first, size_t row_bytes);

using RecallDone = std::function<void(absl::StatusOr<RecalledRows>)>;

// The `done` of each part. `sizes` are the parts' numbers of selections. `done` is called once, when all parts are:
// with their answers in order, those that failed as selections of which nothing came; with the first part's failure
// when all failed.
std::vector<RecallDone> JoinRecalls(std::vector<size_t> sizes, RecallDone done);

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_REMOTE_SPLIT_RECALL_H_
