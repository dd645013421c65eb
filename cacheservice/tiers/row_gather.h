// Copying chosen rows out of block values, in the order they were asked for.
#ifndef TIDEPOOL_CACHESERVICE_TIERS_ROW_GATHER_H_
#define TIDEPOOL_CACHESERVICE_TIERS_ROW_GATHER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "cacheservice/api/block_cache.h"
#include "policies/kv/block_codec.h"

namespace tidepool {

// Takes values one by one, in any order, and keeps only their rows, so that a gather over many blocks never holds all
// of them. Not thread-safe.
class RowGather {
 public:
  // The selections outlive the gather.
  explicit RowGather(absl::Span<const RowSelection> selections);

  // Each block once, in the order of first mention.
  absl::Span<const BlockId> blocks() const { return blocks_; }

  // Has the processor fetch what Add will read of the value of blocks()[index]: blocks lie anywhere in memory.
  void Prefetch(size_t index, std::string_view value) const;
  // The value of blocks()[index]; the rows that are copied are verified here, while they are in the processor's cache,
  // and the header where it says another layout than the headers before. DataLoss: it is damaged, none of its rows
  // count. InvalidArgument: a selection's kv head is outside the block, or its rows have another size than those
  // before.
  absl::Status Add(size_t index, std::string_view value);

  // Rows found and not found so far.
  int64_t found_rows() const { return found_rows_; }
  int64_t wanted_rows() const { return wanted_rows_; }

  RecalledRows Finish() &&;

 private:
  static constexpr uint32_t kNone = UINT32_MAX;

  // A view of a value whose layout is known to be the block's.
  absl::StatusOr<BlockView> ViewOf(std::string_view value) const;

  absl::Span<const RowSelection> selections_;
  std::vector<BlockId> blocks_;
  std::vector<uint32_t> first_of_;   // by block: its first selection
  std::vector<uint32_t> next_;       // by selection: the next one of the same block, or kNone
  std::vector<size_t> row_of_;       // by selection: the place of its first row, as if all were found
  std::vector<uint64_t> found_;      // by selection
  std::string rows_;                 // [wanted rows][row_bytes]
  std::vector<uint32_t> checksums_;  // [wanted rows]
  size_t row_bytes_ = 0;             // 0: no block seen
  size_t value_bytes_ = 0;           // of the newest block
  int tokens_ = 0;                   // of the newest block
  int kv_heads_ = 0;                 // of the newest block; like row_bytes_ from a header that was verified
  int64_t found_rows_ = 0;
  int64_t wanted_rows_ = 0;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_ROW_GATHER_H_
