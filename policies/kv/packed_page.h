// How rows lie on the device at less than their own precision: in groups of kGroupTokens rows of one (layer, kv head),
// each a packed page of its own.
//
//   int8           per token and symmetric, K and V apart: x = code * scale, codes -127 .. 127. Every row stands alone.
//   kivi4, kivi2   KIVI (policies/retain/kivi.h): x = code * scale + minimum. Keys share a range per channel over the
//                  group's rows, values over value_group channels of one row. Codes of the group never change.
//
// Byte layout of a packed page, H = head_dim, B = bits, all offsets multiples of 64:
//
//   key scales      int8: half [32], by token;  kivi: half [H]
//   key minimums    kivi: half [H]
//   value scales    int8: half [32];            kivi: half [32][H / value_group]
//   value minimums  kivi: half [32][H / value_group]
//   key codes       [2][H][16 tokens], 2 B bytes for each 16
//   value codes     [32][H], 2 B bytes for each 16
//
// The first code lies in the lowest bits. Half of a group is what one slot page is: 16 slots that attention scores at
// once.
#ifndef TIDEPOOL_POLICIES_KV_PACKED_PAGE_H_
#define TIDEPOOL_POLICIES_KV_PACKED_PAGE_H_

#include <cstddef>
#include <cstdint>

namespace tidepool {

// Sessions and requests store these by value. kF16: rows as they were computed, in the layout's element type.
enum class KvPrecision : uint8_t { kF16, kInt8, kKivi4, kKivi2 };

inline constexpr int kKvPrecisions = 4;
inline constexpr int kGroupTokens = 32;  // KIVI's g

constexpr int CodeBits(KvPrecision precision) {
  return precision == KvPrecision::kInt8 ? 8 : precision == KvPrecision::kKivi4 ? 4 : 2;
}

// Where the parts of a packed page begin.
struct PackedPage {
  constexpr PackedPage(KvPrecision precision, int head_dim)
      : code_bytes(2 * CodeBits(precision)), value_group(head_dim % 32 == 0 ? 32 : 16) {
    const bool kivi = precision != KvPrecision::kInt8;
    value_groups = kivi ? head_dim / value_group : 1;
    const size_t key_ranges = 2 * static_cast<size_t>(kivi ? head_dim : kGroupTokens);
    const size_t value_ranges = 2 * static_cast<size_t>(kGroupTokens) * value_groups;
    key_minimums = RoundUp(key_ranges);
    value_scales = key_minimums + (kivi ? RoundUp(key_ranges) : 0);
    value_minimums = value_scales + RoundUp(value_ranges);
    key_codes = value_minimums + (kivi ? RoundUp(value_ranges) : 0);
    const size_t codes = static_cast<size_t>(kGroupTokens) * head_dim / 16 * code_bytes;
    value_codes = key_codes + RoundUp(codes);
    bytes = value_codes + RoundUp(codes);
  }

  static constexpr size_t RoundUp(size_t bytes) { return (bytes + 63) / 64 * 64; }

  int code_bytes;   // of 16 codes
  int value_group;  // channels that share a range (kivi)
  int value_groups = 1;
  // Offsets in bytes; key scales come first.
  size_t key_minimums = 0, value_scales = 0, value_minimums = 0, key_codes = 0, value_codes = 0;
  size_t bytes = 0;
};

// What one resident row costs, in bytes: of a page that is full.
constexpr double ResidentRowBytes(KvPrecision precision, int head_dim, size_t row_bytes) {
  if (precision == KvPrecision::kF16) return static_cast<double>(row_bytes);
  return static_cast<double>(PackedPage(precision, head_dim).bytes) / kGroupTokens;
}

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_KV_PACKED_PAGE_H_
