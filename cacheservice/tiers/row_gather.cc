#include "cacheservice/tiers/row_gather.h"

#include <bit>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "policies/kv/block_codec.h"

namespace tidepool {

RowGather::RowGather(absl::Span<const RowSelection> selections) : selections_(selections), parts_(selections.size()) {
  absl::flat_hash_map<BlockId, size_t> index_of;
  for (size_t i = 0; i < selections.size(); ++i) {
    const auto [it, fresh] = index_of.emplace(selections[i].block, blocks_.size());
    if (fresh) {
      blocks_.push_back(selections[i].block);
      selections_of_.emplace_back();
    }
    selections_of_[it->second].push_back(static_cast<uint32_t>(i));
    wanted_rows_ += std::popcount(selections[i].row_mask);
  }
}

absl::Status RowGather::Add(size_t index, std::string_view value) {
  TP_ASSIGN_OR_RETURN(const BlockView view, BlockView::Parse(value));
  if (view.layer() != blocks_[index].layer) {
    return absl::DataLossError(
        absl::StrCat("block value: of layer ", view.layer(), ", stored as layer ", blocks_[index].layer));
  }
  if (row_bytes_ != 0 && view.row_bytes() != row_bytes_) {
    return absl::InvalidArgumentError(absl::StrCat("selections: block ", blocks_[index].key.ToHex(), " has rows of ",
                                                   view.row_bytes(), " bytes, others of ", row_bytes_,
                                                   ": ask for one layout at a time"));
  }
  for (const uint32_t i : selections_of_[index]) {
    const int32_t kv_head = selections_[i].kv_head;
    if (kv_head < 0 || kv_head >= view.kv_heads()) {
      return absl::InvalidArgumentError(
          absl::StrCat("selections[", i, "].kv_head ", kv_head, " is not in 0 to ", view.kv_heads() - 1));
    }
  }
  row_bytes_ = view.row_bytes();
  const uint64_t all_tokens = view.tokens() == 64 ? ~uint64_t{0} : (uint64_t{1} << view.tokens()) - 1;
  for (const uint32_t i : selections_of_[index]) {
    Part& part = parts_[i];
    part.found = selections_[i].row_mask & all_tokens;
    part.rows.reserve(std::popcount(part.found) * row_bytes_);
    for (uint64_t left = part.found; left != 0; left &= left - 1) {
      const int token = std::countr_zero(left);
      part.rows.append(view.Row(selections_[i].kv_head, token));
      part.checksums.push_back(view.RowChecksum(selections_[i].kv_head, token));
    }
    found_rows_ += std::popcount(part.found);
  }
  return absl::OkStatus();
}

RecalledRows RowGather::Finish() && {
  RecalledRows recalled;
  recalled.found.reserve(parts_.size());
  recalled.rows.reserve(found_rows_ * row_bytes_);
  recalled.row_checksums.reserve(found_rows_);
  for (Part& part : parts_) {
    recalled.found.push_back(part.found);
    recalled.rows.append(part.rows);
    recalled.row_checksums.insert(recalled.row_checksums.end(), part.checksums.begin(), part.checksums.end());
    part = Part{};
  }
  return recalled;
}

}  // namespace tidepool
