#include "cacheservice/remote/split_recall.h"

#include <bit>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "base/mutex.h"
#include "cacheservice/wire/messages.h"

namespace tidepool {
namespace {

class Join {
 public:
  Join(std::vector<size_t> sizes, RecallDone done)
      : sizes_(std::move(sizes)), done_(std::move(done)), parts_(sizes_.size()), left_(sizes_.size()) {}

  void Add(size_t part, absl::StatusOr<RecalledRows> rows) {
    {
      MutexLock lock(&mutex_);
      parts_[part] = std::move(rows);
      if (--left_ > 0) return;
    }
    done_(Whole());  // the last one: nobody else is here any more
  }

 private:
  absl::StatusOr<RecalledRows> Whole() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    RecalledRows whole;
    bool any = false;
    for (size_t i = 0; i < parts_.size(); ++i) {
      if (!parts_[i]->ok()) {
        whole.found.insert(whole.found.end(), sizes_[i], 0);
        whole.complete = false;
        continue;
      }
      any = true;
      const RecalledRows& part = **parts_[i];
      whole.complete = whole.complete && part.complete;
      whole.found.insert(whole.found.end(), part.found.begin(), part.found.end());
      whole.rows.append(part.rows);
      whole.row_checksums.insert(whole.row_checksums.end(), part.row_checksums.begin(), part.row_checksums.end());
    }
    if (!any) return parts_[0]->status();
    return whole;
  }

  const std::vector<size_t> sizes_;
  const RecallDone done_;
  Mutex mutex_;
  std::vector<std::optional<absl::StatusOr<RecalledRows>>> parts_ ABSL_GUARDED_BY(mutex_);
  size_t left_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

size_t FitsOneRequest(const std::vector<RowSelection>& selections, size_t first, size_t row_bytes) {
  int64_t bytes = 0;
  size_t count = 0;
  while (first + count < selections.size() && count < static_cast<size_t>(kMaxWireSelections)) {
    bytes += std::popcount(selections[first + count].row_mask) * static_cast<int64_t>(row_bytes);
    if (count > 0 && bytes > kMaxWireRecallBytes) break;
    ++count;
  }
  return count;
}

std::vector<RecallDone> JoinRecalls(std::vector<size_t> sizes, RecallDone done) {
  const size_t parts = sizes.size();
  auto join = std::make_shared<Join>(std::move(sizes), std::move(done));
  std::vector<RecallDone> dones;
  for (size_t part = 0; part < parts; ++part) {
    dones.push_back([join, part](absl::StatusOr<RecalledRows> rows) { join->Add(part, std::move(rows)); });
  }
  return dones;
}

}  // namespace tidepool
