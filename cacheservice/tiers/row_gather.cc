#include "cacheservice/tiers/row_gather.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "base/checksum.h"
#include "base/status_macros.h"
#include "policies/kv/block_codec.h"

namespace tidepool {

RowGather::RowGather(absl::Span<const RowSelection> selections)
    : selections_(selections), next_(selections.size(), kNone), found_(selections.size(), 0) {
  absl::flat_hash_map<BlockId, uint32_t> last_of;  // its newest selection
  last_of.reserve(selections.size());
  row_of_.reserve(selections.size());
  for (uint32_t i = 0; i < selections.size(); ++i) {
    const auto [it, fresh] = last_of.emplace(selections[i].block, i);
    if (fresh) {
      blocks_.push_back(selections[i].block);
      first_of_.push_back(i);
    } else {
      next_[it->second] = i;
      it->second = i;
    }
    row_of_.push_back(static_cast<size_t>(wanted_rows_));
    wanted_rows_ += std::popcount(selections[i].row_mask);
  }
}

void RowGather::Prefetch(size_t index, std::string_view value) const {
  if (value.size() != value_bytes_) return;  // of another layout than the newest
  constexpr size_t kLine = 64;
  const size_t first_row = kBlockHeaderBytes + static_cast<size_t>(kv_heads_) * tokens_ * sizeof(uint32_t);
  __builtin_prefetch(value.data());
  for (uint32_t i = first_of_[index]; i != kNone; i = next_[i]) {
    const RowSelection& selection = selections_[i];
    if (selection.kv_head < 0 || selection.kv_head >= kv_heads_) continue;
    for (uint64_t left = selection.row_mask; left != 0; left &= left - 1) {
      const int token = std::countr_zero(left);
      if (token >= tokens_) break;
      const size_t row = static_cast<size_t>(selection.kv_head) * tokens_ + token;
      __builtin_prefetch(value.data() + kBlockHeaderBytes + row * sizeof(uint32_t));
      const char* bytes = value.data() + first_row + row * row_bytes_;
      for (size_t line = 0; line < row_bytes_; line += kLine) __builtin_prefetch(bytes + line);
    }
  }
}

// Verifying a header reads the checksums of all rows, three times as many bytes as most selections want of a block. One
// that says kv heads and row size of a header that was verified is not wrong about the third thing that says where a
// row lies: with the value's size they leave one number of tokens.
absl::StatusOr<BlockView> RowGather::ViewOf(std::string_view value) const {
  absl::StatusOr<BlockView> view = BlockView::ParseUnverified(value);
  if (!view.ok() || (view->row_bytes() == row_bytes_ && view->kv_heads() == kv_heads_)) return view;
  return BlockView::Parse(value);
}

absl::Status RowGather::Add(size_t index, std::string_view value) {
  TP_ASSIGN_OR_RETURN(const BlockView view, ViewOf(value));
  if (view.layer() != blocks_[index].layer) {
    return absl::DataLossError(
        absl::StrCat("block value: of layer ", view.layer(), ", stored as layer ", blocks_[index].layer));
  }
  if (row_bytes_ != 0 && view.row_bytes() != row_bytes_) {
    return absl::InvalidArgumentError(absl::StrCat("selections: block ", blocks_[index].key.ToHex(), " has rows of ",
                                                   view.row_bytes(), " bytes, others of ", row_bytes_,
                                                   ": ask for one layout at a time"));
  }
  for (uint32_t i = first_of_[index]; i != kNone; i = next_[i]) {
    const int32_t kv_head = selections_[i].kv_head;
    if (kv_head < 0 || kv_head >= view.kv_heads()) {
      return absl::InvalidArgumentError(
          absl::StrCat("selections[", i, "].kv_head ", kv_head, " is not in 0 to ", view.kv_heads() - 1));
    }
  }
  if (row_bytes_ == 0) {
    row_bytes_ = view.row_bytes();
    rows_.resize(wanted_rows_ * row_bytes_);
    checksums_.resize(wanted_rows_);
  }
  value_bytes_ = value.size();
  tokens_ = view.tokens();
  kv_heads_ = view.kv_heads();
  const uint64_t all_tokens = view.tokens() == 64 ? ~uint64_t{0} : (uint64_t{1} << view.tokens()) - 1;
  int64_t found_rows = 0;
  for (uint32_t i = first_of_[index]; i != kNone; i = next_[i]) {
    found_[i] = selections_[i].row_mask & all_tokens;
    size_t row = row_of_[i];
    for (uint64_t left = found_[i]; left != 0; left &= left - 1, ++row) {
      const int token = std::countr_zero(left);
      char* copy = rows_.data() + row * row_bytes_;
      std::memcpy(copy, view.Row(selections_[i].kv_head, token).data(), row_bytes_);
      checksums_[row] = view.RowChecksum(selections_[i].kv_head, token);
      if (Checksum32(copy, row_bytes_) == checksums_[row]) continue;
      for (uint32_t copied = first_of_[index]; copied != kNone; copied = next_[copied]) found_[copied] = 0;
      return absl::DataLossError(absl::StrCat("block value: checksum of row (kv head ", selections_[i].kv_head,
                                              ", token ", token, ") differs"));
    }
    found_rows += std::popcount(found_[i]);
  }
  found_rows_ += found_rows;
  return absl::OkStatus();
}

RecalledRows RowGather::Finish() && {
  if (found_rows_ < wanted_rows_) {  // what was found moves together
    size_t row = 0;
    for (size_t i = 0; i < found_.size(); ++i) {
      const auto found = static_cast<size_t>(std::popcount(found_[i]));
      if (found > 0 && row != row_of_[i]) {
        std::memmove(rows_.data() + row * row_bytes_, rows_.data() + row_of_[i] * row_bytes_, found * row_bytes_);
        std::copy_n(checksums_.begin() + static_cast<std::ptrdiff_t>(row_of_[i]), found,
                    checksums_.begin() + static_cast<std::ptrdiff_t>(row));
      }
      row += found;
    }
    rows_.resize(row * row_bytes_);
    checksums_.resize(row);
  }
  return {
      .complete = true, .found = std::move(found_), .rows = std::move(rows_), .row_checksums = std::move(checksums_)};
}

}  // namespace tidepool
