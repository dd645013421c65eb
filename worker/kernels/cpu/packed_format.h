// How a weight matrix lies in memory for the kernels: tiles of kTileRows outputs, one after the other; a tile holds its
// blocks of kBlockInputs inputs in ascending order. Plain data only: kernels of every instruction set include this.
//
// A block of an integer format: values, then scales [kTileRows], then minima [kTileRows] where the type has them.
//   bytes:   8 groups of 4 inputs, each [kTileRows][4] unsigned bytes
//   nibbles: 4 runs of 64 bytes; run j holds group 2j in its low and group 2j+1 in its high nibbles, [kTileRows][4]
// so that a 32-bit lane meets the four inputs of one row, as the int8 dot product instructions want it. A signed type
// is stored with an offset added; the kernels take it off again through the sum of the activations.
// weight = scale * (value - offset) + minimum
//
// A tile of a float format: [columns][kTileRows] in the source's type.
#ifndef TIDEPOOL_WORKER_KERNELS_CPU_PACKED_FORMAT_H_
#define TIDEPOOL_WORKER_KERNELS_CPU_PACKED_FORMAT_H_

#include <cstddef>
#include <cstdint>

namespace tidepool {

inline constexpr int kTileRows = 16;
inline constexpr int kBlockInputs = 32;
inline constexpr int kBlockGroups = 8;  // of 4 inputs

enum class PackedFormat : uint8_t { kF32, kF16, kBF16, kQ4_0, kQ4_1, kQ4_K, kQ5_0, kQ5_1, kQ5_K, kQ6_K, kQ8_0 };
inline constexpr int kPackedFormats = 11;

struct PackedFormatFacts {
  int value_bits;    // 4 or 8; for a float format the bits of an element
  int maximum;       // of a stored value
  int offset;        // taken off a stored value
  bool wide_scales;  // scales and minima are float32 (products in the source type), else float16
  int scales;        // per row and block: 2 where a scale covers 16 inputs; 0 for a float format
  bool has_minimum;

  constexpr bool is_float() const { return scales == 0; }
  constexpr size_t values_bytes() const { return size_t{kTileRows} * kBlockInputs * value_bits / 8; }
  constexpr size_t scale_bytes() const { return size_t{kTileRows} * (wide_scales ? 4 : 2); }
  // Bytes of kBlockInputs inputs of a tile.
  constexpr size_t block_bytes() const { return values_bytes() + scale_bytes() * (scales + (has_minimum ? 1 : 0)); }
};

inline constexpr PackedFormatFacts FactsOf(PackedFormat format) {
  switch (format) {
    case PackedFormat::kF32: return {32, 0, 0, false, 0, false};
    case PackedFormat::kF16: return {16, 0, 0, false, 0, false};
    case PackedFormat::kBF16: return {16, 0, 0, false, 0, false};
    case PackedFormat::kQ4_0: return {4, 15, 8, false, 1, false};
    case PackedFormat::kQ4_1: return {4, 15, 0, false, 1, true};
    case PackedFormat::kQ4_K: return {4, 15, 0, true, 1, true};
    case PackedFormat::kQ5_0: return {8, 31, 16, false, 1, false};
    case PackedFormat::kQ5_1: return {8, 31, 0, false, 1, true};
    case PackedFormat::kQ5_K: return {8, 31, 0, true, 1, true};
    case PackedFormat::kQ6_K: return {8, 63, 32, true, 2, false};
    case PackedFormat::kQ8_0: return {8, 255, 128, false, 1, false};
  }
  return {};
}

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KERNELS_CPU_PACKED_FORMAT_H_
