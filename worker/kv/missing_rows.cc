#include "worker/kv/missing_rows.h"

#include <algorithm>
#include <string_view>
#include <tuple>

#include "base/checksum.h"

namespace tidepool {

void AppendMissing(const MissingRows& head, std::vector<MissingPosition>& positions, std::vector<MissingRows>* groups) {
  std::sort(positions.begin(), positions.end(),
            [](const MissingPosition& a, const MissingPosition& b) { return a.position < b.position; });
  const size_t first = groups->size();
  for (const auto [position, wanted] : positions) {
    const int32_t block = position / kBlockTokens;
    if (groups->size() == first || groups->back().block != block) {
      groups->push_back({head.slice, head.layer, head.kv_head, block, 0, 0});
    }
    groups->back().rows |= MissingRows::Bit(position);
    if (wanted) groups->back().wanted |= MissingRows::Bit(position);
  }
}

void MergeMissing(std::vector<MissingRows>& groups) {
  auto place = [](const MissingRows& rows) { return std::tie(rows.layer, rows.kv_head, rows.block); };
  std::sort(groups.begin(), groups.end(),
            [&](const MissingRows& a, const MissingRows& b) { return place(a) < place(b); });
  size_t merged = 0;
  for (size_t i = 0; i < groups.size(); ++i) {
    if (merged > 0 && place(groups[merged - 1]) == place(groups[i])) {
      groups[merged - 1].rows |= groups[i].rows;
      groups[merged - 1].wanted |= groups[i].wanted;
    } else {
      groups[merged++] = groups[i];
    }
  }
  groups.resize(merged);
}

std::vector<MissingRows> TakeAhead(std::vector<MissingRows>& groups) {
  const auto first =
      std::partition(groups.begin(), groups.end(), [](const MissingRows& group) { return group.wanted != 0; });
  std::vector<MissingRows> ahead(first, groups.end());
  groups.erase(first, groups.end());
  return ahead;
}

MissingAnswer::MissingAnswer(const absl::StatusOr<RecalledRows>* answer, absl::Span<const MissingRows> groups,
                             size_t row_bytes)
    : groups_(groups), row_bytes_(row_bytes) {
  if (answer == nullptr) {
    none_ = absl::DeadlineExceededError("no answer in time");
  } else if (!answer->ok()) {
    none_ = answer->status();
  } else if ((*answer)->found.size() != groups.size()) {
    none_ = absl::InternalError("the answer is to another question");
  }
  if (!none_.ok()) return;
  answer_ = &**answer;
  absent_ = answer_->complete ? absl::NotFoundError("the block is not stored")
                              : absl::DeadlineExceededError("the service ran out of time");
  size_t row = 0;
  first_row_.reserve(groups.size());
  for (const uint64_t found : answer_->found) {
    first_row_.push_back(row);
    row += static_cast<size_t>(std::popcount(found));
  }
}

const char* MissingAnswer::Verified(size_t row) const {
  if (row >= answer_->row_checksums.size() || answer_->rows.size() < (row + 1) * row_bytes_) return nullptr;
  const auto bytes = std::string_view(answer_->rows).substr(row * row_bytes_, row_bytes_);
  return Checksum32(bytes) == answer_->row_checksums[row] ? bytes.data() : nullptr;
}

absl::Status MissingAnswer::Damaged() { return absl::DataLossError("its checksum differs"); }

}  // namespace tidepool
