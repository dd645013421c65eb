// How a weight matrix lies in device memory: rows of blocks of 32 inputs, in as many bits as in the file.
//
//   values    [rows][columns / 32]: 16 bytes (4 bits) or 32 bytes (8 bits; 5- and 6-bit types too). In the 4-bit form
//             the low nibble of byte i is input i, the high one input i + 16; bytes are signed.
//   scales    [rows][columns / 32]: the scale, or both of them, and the minimum where the type has one: halves, or in
//             K types bytes, to be multiplied by
//   supers    K types, [rows][columns / 256][2]: halves d and dmin
//
// weight = scale * (value - kOffset) + minimum, with scale and minimum the same float32 as in the file's own
// dequantisation. A float matrix is its rows as in the file, in `values`.
#ifndef TIDEPOOL_WORKER_KERNELS_CUDA_MATRIX_FORMAT_H_
#define TIDEPOOL_WORKER_KERNELS_CUDA_MATRIX_FORMAT_H_

#include <cstdint>

#include "worker/kernels/cuda/cta.h"

namespace tidepool::cuda {

enum class MatrixFormat : uint8_t {
  kF32,
  kF16,
  kBF16,
  kNibbles,         // Q4_0
  kNibblesMinimum,  // Q4_1
  kNibblesK,        // Q4_K
  kBytes,           // Q5_0, Q8_0
  kBytesMinimum,    // Q5_1
  kBytesK,          // Q5_K
  kBytesK16,        // Q6_K
};
inline constexpr int kMatrixFormats = 10;
inline constexpr int kBlock = 32;
inline constexpr int kSuperBlock = 256;

struct FormatFacts {
  int bits;      // of a value; of a float format its element
  int scales;    // of a block; 0: a float format
  bool minimum;  // has minimums
  bool k;        // scales and minimums are bytes times those of a super-block
  int offset;    // taken off a value
};

constexpr FormatFacts FactsOf(MatrixFormat format) {
  switch (format) {
    case MatrixFormat::kF32: return {32, 0, false, false, 0};
    case MatrixFormat::kF16: return {16, 0, false, false, 0};
    case MatrixFormat::kBF16: return {16, 0, false, false, 0};
    case MatrixFormat::kNibbles: return {4, 1, false, false, 8};
    case MatrixFormat::kNibblesMinimum: return {4, 1, true, false, 0};
    case MatrixFormat::kNibblesK: return {4, 1, true, true, 0};
    case MatrixFormat::kBytes: return {8, 1, false, false, 0};
    case MatrixFormat::kBytesMinimum: return {8, 1, true, false, 0};
    case MatrixFormat::kBytesK: return {8, 1, true, true, 0};
    case MatrixFormat::kBytesK16: return {8, 2, false, true, 0};
  }
  return {};
}

// A matrix in device memory.
struct DeviceMatrix {
  const uint8_t* values = nullptr;
  const uint8_t* scales = nullptr;
  const uint16_t* supers = nullptr;
  int32_t rows = 0, columns = 0;
  MatrixFormat format = MatrixFormat::kF32;
};

// Scales and minimum of block `block` of row `row`.
template <MatrixFormat kFormat>
struct BlockScales {
  static constexpr FormatFacts kFacts = FactsOf(kFormat);
  float scale[kFacts.scales == 2 ? 2 : 1];
  float minimum;

  TP_KERNEL static BlockScales Load(const DeviceMatrix& matrix, int64_t row, int block) {
    BlockScales out = {};
    const int64_t blocks = matrix.columns / kBlock, at = row * blocks + block;
    if constexpr (kFacts.k) {
      const int64_t super = row * (matrix.columns / kSuperBlock) + block / (kSuperBlock / kBlock);
      const uint16_t both = reinterpret_cast<const uint16_t*>(matrix.scales)[at];
      float d[2];
      HalvesToFloats(LoadWord(matrix.supers + 2 * super), d);
      if constexpr (kFacts.scales == 2) {
        out.scale[0] = d[0] * static_cast<float>(static_cast<int8_t>(both));
        out.scale[1] = d[0] * static_cast<float>(static_cast<int8_t>(both >> 8));
      } else {
        out.scale[0] = d[0] * static_cast<float>(both & 0xff);
        out.minimum = -(d[1] * static_cast<float>(both >> 8));
      }
    } else if constexpr (kFacts.minimum) {
      float both[2];
      HalvesToFloats(LoadWord(matrix.scales + 4 * at), both);
      out.scale[0] = both[0];
      out.minimum = both[1];
    } else {
      out.scale[0] = HalfToFloat(reinterpret_cast<const uint16_t*>(matrix.scales)[at]);
    }
    return out;
  }
};

// The values of a block as eight words of four signed bytes, inputs in order, less no offset.
template <MatrixFormat kFormat>
TP_KERNEL void LoadBlock(const DeviceMatrix& matrix, int64_t row, int block, uint32_t (&words)[8]) {
  const int64_t at = row * (matrix.columns / kBlock) + block;
  if constexpr (FactsOf(kFormat).bits == 4) {
    const Words4 packed = StreamWords(matrix.values + at * 16);
    for (int i = 0; i < 4; ++i) {
      words[i] = packed.w[i] & 0x0f0f0f0fu;
      words[4 + i] = packed.w[i] >> 4 & 0x0f0f0f0fu;
    }
  } else {
    const Words4 low = StreamWords(matrix.values + at * 32), high = StreamWords(matrix.values + at * 32 + 16);
    for (int i = 0; i < 4; ++i) {
      words[i] = low.w[i];
      words[4 + i] = high.w[i];
    }
  }
}

// Element `column` of a row of a float matrix.
template <MatrixFormat kFormat>
TP_KERNEL float FloatElement(const DeviceMatrix& matrix, int64_t row, int column) {
  const int64_t at = row * matrix.columns + column;
  if constexpr (kFormat == MatrixFormat::kF32) return reinterpret_cast<const float*>(matrix.values)[at];
  const uint16_t bits = reinterpret_cast<const uint16_t*>(matrix.values)[at];
  return kFormat == MatrixFormat::kF16 ? HalfToFloat(bits) : BrainToFloat(bits);
}

// Calls with.template operator()<format>() for a format known at run time.
template <class With>
TP_KERNEL void ForFormat(MatrixFormat format, With&& with) {
  switch (format) {
    case MatrixFormat::kF32: return with.template operator()<MatrixFormat::kF32>();
    case MatrixFormat::kF16: return with.template operator()<MatrixFormat::kF16>();
    case MatrixFormat::kBF16: return with.template operator()<MatrixFormat::kBF16>();
    case MatrixFormat::kNibbles: return with.template operator()<MatrixFormat::kNibbles>();
    case MatrixFormat::kNibblesMinimum: return with.template operator()<MatrixFormat::kNibblesMinimum>();
    case MatrixFormat::kNibblesK: return with.template operator()<MatrixFormat::kNibblesK>();
    case MatrixFormat::kBytes: return with.template operator()<MatrixFormat::kBytes>();
    case MatrixFormat::kBytesMinimum: return with.template operator()<MatrixFormat::kBytesMinimum>();
    case MatrixFormat::kBytesK: return with.template operator()<MatrixFormat::kBytesK>();
    case MatrixFormat::kBytesK16: return with.template operator()<MatrixFormat::kBytesK16>();
  }
}

// 32 elements of a row from `block`'s first on, as float32.
template <MatrixFormat kFormat>
TP_KERNEL void DequantizeBlock(const DeviceMatrix& matrix, int64_t row, int block, float (&out)[kBlock]) {
  constexpr FormatFacts kFacts = FactsOf(kFormat);
  if constexpr (kFacts.scales == 0) {
    for (int i = 0; i < kBlock; ++i) out[i] = FloatElement<kFormat>(matrix, row, block * kBlock + i);
  } else {
    const BlockScales<kFormat> scales = BlockScales<kFormat>::Load(matrix, row, block);
    uint32_t words[8];
    LoadBlock<kFormat>(matrix, row, block, words);
    for (int i = 0; i < kBlock; ++i) {
      const auto value = static_cast<int8_t>(words[i / 4] >> (8 * (i % 4)));
      out[i] = scales.scale[kFacts.scales == 2 ? i / 16 : 0] * static_cast<float>(value - kFacts.offset);
      if constexpr (kFacts.minimum) out[i] += scales.minimum;
    }
  }
}

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_WORKER_KERNELS_CUDA_MATRIX_FORMAT_H_
