#include "cacheservice/shards/recall_merge.h"

#include <bit>
#include <utility>

#include "base/check.h"

namespace tidepool {

RecallMerge::RecallMerge(std::vector<RowSelection> selections, size_t row_bytes)
    : selections_(std::move(selections)),
      row_bytes_(row_bytes),
      found_(selections_.size(), 0),
      pieces_(selections_.size()) {}

void RecallMerge::Add(absl::Span<const uint32_t> indices, RecalledRows part) {
  TIDEPOOL_CHECK(part.found.size() == indices.size());
  TIDEPOOL_CHECK(part.rows.size() == part.row_checksums.size() * row_bytes_);
  size_t row = 0;
  for (size_t i = 0; i < indices.size(); ++i) {
    const uint64_t mask = part.found[i];
    if ((mask & Missing(indices[i])) != 0) {
      pieces_[indices[i]].push_back({static_cast<uint32_t>(parts_.size()), mask, row});
      found_[indices[i]] |= mask & selections_[indices[i]].row_mask;
    }
    row += std::popcount(mask);
  }
  TIDEPOOL_CHECK(row == part.row_checksums.size());
  parts_.push_back(std::move(part));
}

RecalledRows RecallMerge::Finish() && {
  RecalledRows whole;
  size_t rows = 0;
  for (const uint64_t mask : found_) rows += std::popcount(mask);
  whole.rows.reserve(rows * row_bytes_);
  whole.row_checksums.reserve(rows);
  const auto append = [&](const RecalledRows& part, size_t row, size_t count) {
    whole.rows.append(part.rows, row * row_bytes_, count * row_bytes_);
    const auto first = part.row_checksums.begin() + static_cast<int64_t>(row);
    whole.row_checksums.insert(whole.row_checksums.end(), first, first + static_cast<int64_t>(count));
  };
  for (size_t i = 0; i < selections_.size(); ++i) {
    if (pieces_[i].size() == 1 && pieces_[i][0].mask == found_[i]) {  // as nearly always
      append(parts_[pieces_[i][0].part], pieces_[i][0].first_row, std::popcount(found_[i]));
      continue;
    }
    for (uint64_t left = found_[i]; left != 0; left &= left - 1) {
      const int token = std::countr_zero(left);
      for (const Piece& piece : pieces_[i]) {
        if ((piece.mask >> token & 1) == 0) continue;
        append(parts_[piece.part], piece.first_row + std::popcount(piece.mask & ((uint64_t{1} << token) - 1)), 1);
        break;
      }
    }
  }
  whole.found = std::move(found_);
  return whole;
}

}  // namespace tidepool
