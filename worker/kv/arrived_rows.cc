#include "worker/kv/arrived_rows.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace tidepool {

ArrivedRows::ArrivedRows(std::optional<absl::StatusOr<RecalledRows>> answer, std::vector<MissingRows> groups,
                         size_t row_bytes)
    : answer_(std::move(answer)),
      groups_(std::move(groups)),
      answer_view_(answer_.has_value() ? &*answer_ : nullptr, groups_, row_bytes) {
  for (size_t g = 0; g < groups_.size(); ++g) {
    const MissingRows& rows = groups_[g];
    if (heads_.empty() || heads_.back().layer != rows.layer || heads_.back().kv_head != rows.kv_head) {
      heads_.push_back({.layer = rows.layer, .kv_head = rows.kv_head, .first = g, .end = g});
    }
    heads_.back().end = g + 1;
  }
  left_ = heads_.size();
}

ArrivedRows::OfHead* ArrivedRows::Find(int layer, int kv_head) {
  const auto at = std::lower_bound(heads_.begin(), heads_.end(), std::tie(layer, kv_head),
                                   [](const OfHead& head, const std::tuple<const int&, const int&>& other) {
                                     return std::tie(head.layer, head.kv_head) < other;
                                   });
  const bool found = at != heads_.end() && at->layer == layer && at->kv_head == kv_head && !at->taken;
  return found ? &*at : nullptr;
}

}  // namespace tidepool
