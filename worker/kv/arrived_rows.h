// Rows that an asynchronous request has brought, until each (layer, kv head) has taken its own: it does that when its
// layer comes, on the thread that is to look at them, beside the attention of others.
#ifndef TIDEPOOL_WORKER_KV_ARRIVED_ROWS_H_
#define TIDEPOOL_WORKER_KV_ARRIVED_ROWS_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cacheservice/api/block_cache.h"
#include "worker/kv/missing_rows.h"

namespace tidepool {

class ArrivedRows {
 public:
  // answer: nullopt when none came in time. groups: what was asked for, as MergeMissing leaves them.
  ArrivedRows(std::optional<absl::StatusOr<RecalledRows>> answer, std::vector<MissingRows> groups, size_t row_bytes);
  ArrivedRows(const ArrivedRows&) = delete;
  ArrivedRows& operator=(const ArrivedRows&) = delete;

  // Of one (layer, kv head), which are in ascending order.
  struct OfHead {
    int layer, kv_head;
    size_t first, end;  // groups
    bool taken = false;
  };
  absl::Span<OfHead> heads() { return absl::MakeSpan(heads_); }
  // Null: it has none, or has taken them.
  OfHead* Find(int layer, int kv_head);
  // Calls take(group, position, bytes, why) as MissingAnswer::ForEachRow does, for each group of the head. Once; for
  // different heads at once.
  template <typename Take>
  void TakeRows(OfHead& head, const Take& take) {
    for (size_t g = head.first; g < head.end; ++g) {
      answer_view_.ForEachRow(g, [&](int32_t position, const char* bytes, const absl::Status& why) {
        take(groups_[g], position, bytes, why);
      });
    }
    head.taken = true;
    left_.fetch_sub(1, std::memory_order_relaxed);
  }
  bool answered() const { return answer_.has_value() && answer_->ok(); }
  // All have taken theirs.
  bool empty() const { return left_.load(std::memory_order_relaxed) == 0; }

 private:
  const std::optional<absl::StatusOr<RecalledRows>> answer_;
  const std::vector<MissingRows> groups_;
  const MissingAnswer answer_view_;  // of both
  std::vector<OfHead> heads_;
  std::atomic<size_t> left_{0};
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_ARRIVED_ROWS_H_
