// Rows that a sequence wants of the cache service, by the stored blocks that they are in, and what came of them.
#ifndef TIDEPOOL_WORKER_KV_MISSING_ROWS_H_
#define TIDEPOOL_WORKER_KV_MISSING_ROWS_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/limits.h"
#include "cacheservice/api/block_cache.h"

namespace tidepool {

// Of one block, layer and kv head.
struct MissingRows {
  int slice = 0;  // of the step that asks
  int layer = 0, kv_head = 0;
  int32_t block = 0;
  uint64_t rows = 0;  // bit t: position block * kBlockTokens + t
  uint64_t wanted =
      0;  // of them, what the queries of a step want; the others are fetched ahead, and nobody misses them

  static constexpr uint64_t Bit(int32_t position) { return uint64_t{1} << (position % kBlockTokens); }
};

// A position of one kv head, and whether the queries of a step want it.
struct MissingPosition {
  int32_t position;
  bool wanted;
};

// Appends `positions`, which it sorts, as rows of blocks. `head`: slice, layer and kv head.
void AppendMissing(const MissingRows& head, std::vector<MissingPosition>& positions, std::vector<MissingRows>* groups);

// Brings rows of a (layer, kv head) together, and those of a block into one, of one slice that asks.
void MergeMissing(std::vector<MissingRows>& groups);

// Takes out of `groups` those in which nothing is wanted.
std::vector<MissingRows> TakeAhead(std::vector<MissingRows>& groups);

// The answer to a recall that asked for `groups` in their order.
class MissingAnswer {
 public:
  // answer: null when none came in time. Both outlive this.
  MissingAnswer(const absl::StatusOr<RecalledRows>* answer, absl::Span<const MissingRows> groups, size_t row_bytes);

  // Calls take(position, bytes, why) for the rows of groups[group], in ascending position: with the bytes of a row
  // whose checksum is right, or with null and the reason.
  template <typename Take>
  void ForEachRow(size_t group, const Take& take) const {
    const MissingRows& rows = groups_[group];
    size_t next = none_.ok() ? first_row_[group] : 0;
    for (uint64_t left = rows.rows; left != 0; left &= left - 1) {
      const int token = std::countr_zero(left);
      const int32_t position = rows.block * kBlockTokens + token;
      if (!none_.ok()) {
        take(position, nullptr, none_);
      } else if ((answer_->found[group] >> token & 1) == 0) {
        take(position, nullptr, absent_);
      } else if (const char* bytes = Verified(next++); bytes != nullptr) {
        take(position, bytes, absl::OkStatus());
      } else {
        take(position, nullptr, Damaged());
      }
    }
  }

 private:
  // The row at this place of the answer, or null when its checksum differs.
  const char* Verified(size_t row) const;
  static absl::Status Damaged();

  const RecalledRows* answer_ = nullptr;
  absl::Span<const MissingRows> groups_;
  const size_t row_bytes_;
  absl::Status none_;    // why there is no answer
  absl::Status absent_;  // why a row is not in it
  std::vector<size_t> first_row_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_MISSING_ROWS_H_
