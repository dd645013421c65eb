// The stored value of one block in one layer: header, checksum per row, rows. Immutable once built.
//
//   offset  size              field (little endian)
//        0     4              magic "TPB1"
//        4     1              KvType
//        5     1              reserved, 0
//        6     2              layer
//        8     2              kv_heads
//       10     2              head_dim
//       12     2              tokens (1 to 64)
//       14     2              reserved, 0
//       16     4              first position
//       20     4              Checksum32 of bytes [0, 20) and of the row checksum table
//       24     4*H*T          Checksum32 of each row, [kv_head][token]
//       ...    row_bytes*H*T  rows, [kv_head][token][K row, V row]
//
// The row checksums are computed where the KV was produced and verified where it is installed again, so no tier and no
// wire between can alter a row unseen (promise P1).
#ifndef TIDEPOOL_POLICIES_KV_BLOCK_CODEC_H_
#define TIDEPOOL_POLICIES_KV_BLOCK_CODEC_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "policies/kv/kv_layout.h"

namespace tidepool {

inline constexpr size_t kBlockHeaderBytes = 24;

size_t BlockValueBytes(const KvLayout& layout, int tokens);

// Where a kv head's rows begin in a value of the layout, as BlockBuilder makes it: one after the other. Nothing of the
// value is read or checked.
const char* RowsInBlock(const KvLayout& layout, int tokens, const char* value, int kv_head);

// Fills a block value in place. Rows may be written in any order; Finish computes the checksums of all of them.
class BlockBuilder {
 public:
  BlockBuilder(const KvLayout& layout, int layer, int32_t first_position, int tokens);
  // K row then V row of one token, layout.row_bytes() bytes to be written by the caller.
  char* MutableRow(int kv_head, int token);
  std::string Finish() &&;

 private:
  KvLayout layout_;
  int tokens_;
  std::string value_;
};

// A parsed view over a value that the caller keeps alive.
class BlockView {
 public:
  // Checks magic, sizes and the header checksum (not the rows). DataLoss with the reason when anything is off.
  static absl::StatusOr<BlockView> Parse(std::string_view value);
  // The same without the header checksum, which is of all rows' checksums too: for one who takes few rows, verifies
  // each, and knows otherwise which layout the block has.
  static absl::StatusOr<BlockView> ParseUnverified(std::string_view value);
  // DataLoss naming the first row whose checksum differs.
  absl::Status VerifyRows() const;
  // InvalidArgument naming the field in which the block differs from `layout`.
  absl::Status CheckLayout(const KvLayout& layout) const;

  int layer() const { return layer_; }
  int kv_heads() const { return kv_heads_; }
  int head_dim() const { return head_dim_; }
  int tokens() const { return tokens_; }
  int32_t first_position() const { return first_position_; }
  KvType type() const { return type_; }
  size_t row_bytes() const { return 2 * static_cast<size_t>(head_dim_) * ElementBytes(type_); }
  // kv_head < kv_heads(), token < tokens().
  std::string_view Row(int kv_head, int token) const;
  uint32_t RowChecksum(int kv_head, int token) const;

 private:
  std::string_view value_;
  int layer_ = 0, kv_heads_ = 0, head_dim_ = 0, tokens_ = 0;
  int32_t first_position_ = 0;
  KvType type_ = KvType::kF16;
};

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_KV_BLOCK_CODEC_H_
