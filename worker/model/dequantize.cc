// Blocks of each GGUF type to float32. The order of the float operations is the reference's (package `gguf`,
// quants.py), so the results are equal bit for bit; the file is compiled without contraction to fused multiply-add.
#include <bit>
#include <cstring>

#include "base/check.h"
#include "worker/model/tensor_view.h"

namespace tidepool {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF data is read in place, little endian");

uint16_t Load16(const uint8_t* p) {
  uint16_t value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

float HalfToFloat(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t exponent = (half >> 10) & 0x1f;
  uint32_t mantissa = half & 0x3ff;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));  // infinity, NaN
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;  // zero and subnormal: exact
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
}

float LoadHalf(const uint8_t* p) { return HalfToFloat(Load16(p)); }

// Blocks of 32: the low nibbles are elements 0..15, the high nibbles 16..31.

// half d, 16 bytes: d * (q - 8)
void Q4_0(const uint8_t* block, float* out) {
  const float d = LoadHalf(block);
  const uint8_t* q = block + 2;
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>((q[i] & 15) - 8);
    out[i + 16] = d * static_cast<float>((q[i] >> 4) - 8);
  }
}

// half d, half m, 16 bytes: d * q + m
void Q4_1(const uint8_t* block, float* out) {
  const float d = LoadHalf(block), m = LoadHalf(block + 2);
  const uint8_t* q = block + 4;
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(q[i] & 15) + m;
    out[i + 16] = d * static_cast<float>(q[i] >> 4) + m;
  }
}

// Fifth bits: bit i of the 32-bit word belongs to element i.
uint32_t LoadFifthBits(const uint8_t* p) {
  uint32_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return bits;
}

// half d, 4 bytes of fifth bits, 16 bytes: d * (q - 16)
void Q5_0(const uint8_t* block, float* out) {
  const float d = LoadHalf(block);
  const uint32_t high = LoadFifthBits(block + 2);
  const uint8_t* q = block + 6;
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(static_cast<int>((q[i] & 15) | ((high >> i & 1) << 4)) - 16);
    out[i + 16] = d * static_cast<float>(static_cast<int>((q[i] >> 4) | ((high >> (i + 16) & 1) << 4)) - 16);
  }
}

// half d, half m, 4 bytes of fifth bits, 16 bytes: d * q + m
void Q5_1(const uint8_t* block, float* out) {
  const float d = LoadHalf(block), m = LoadHalf(block + 2);
  const uint32_t high = LoadFifthBits(block + 4);
  const uint8_t* q = block + 8;
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>((q[i] & 15) | ((high >> i & 1) << 4)) + m;
    out[i + 16] = d * static_cast<float>((q[i] >> 4) | ((high >> (i + 16) & 1) << 4)) + m;
  }
}

// half d, 32 signed bytes: d * q
void Q8_0(const uint8_t* block, float* out) {
  const float d = LoadHalf(block);
  for (int i = 0; i < 32; ++i) out[i] = static_cast<float>(static_cast<int8_t>(block[2 + i])) * d;
}

// Q4_K and Q5_K: 8 groups of 32 with a 6-bit scale and a 6-bit minimum each, packed into 12 bytes: bytes 0..3 hold the
// scales and 4..7 the minima of groups 0..3 in their low 6 bits; 8..11 the low nibbles (scale low, minimum high) of
// groups 4..7, whose upper 2 bits are the top bits of bytes 0..7.
struct GroupScale {
  float scale, minimum;
};
GroupScale LoadGroupScale(const uint8_t* packed, int group) {
  if (group < 4) return {static_cast<float>(packed[group] & 63), static_cast<float>(packed[group + 4] & 63)};
  const int low = packed[group + 4];
  return {static_cast<float>((low & 15) | (packed[group - 4] >> 6 << 4)),
          static_cast<float>((low >> 4) | (packed[group] >> 6 << 4))};
}

// half d, half dmin, 12 bytes of scales, [32 bytes of fifth bits: bit g of byte i is element i of group g,] 128 bytes:
// byte 32 g' + i holds element i of groups 2 g' (low nibble) and 2 g' + 1 (high). d * scale * q - dmin * minimum.
void Q45_K(const uint8_t* block, bool five_bits, float* out) {
  const float d = LoadHalf(block), dmin = LoadHalf(block + 2);
  const uint8_t* fifth = five_bits ? block + 16 : nullptr;
  const uint8_t* q = block + (five_bits ? 48 : 16);
  for (int group = 0; group < 8; ++group) {
    const GroupScale packed = LoadGroupScale(block + 4, group);
    const float scale = d * packed.scale, minimum = dmin * packed.minimum;
    for (int i = 0; i < 32; ++i) {
      const int byte = q[group / 2 * 32 + i];
      int value = group % 2 == 0 ? byte & 15 : byte >> 4;
      if (five_bits) value |= (fifth[i] >> group & 1) << 4;
      out[group * 32 + i] = scale * static_cast<float>(value) - minimum;
    }
  }
}

// 128 bytes of low nibbles, 64 bytes of upper 2 bits, 16 signed scales (one for 16 elements), half d: d * scale * (q -
// 32). Each half of 128 elements is four runs of 32: runs 0 and 1 the low nibbles of bytes 0..31 and 32..63, runs 2 and
// 3 their high nibbles; run r takes bits 2r, 2r+1 of the half's 32 upper bytes.
void Q6_K(const uint8_t* block, float* out) {
  const int8_t* scales = reinterpret_cast<const int8_t*>(block + 192);
  const float d = LoadHalf(block + 208);
  for (int half = 0; half < 2; ++half) {
    const uint8_t* low = block + half * 64;
    const uint8_t* high = block + 128 + half * 32;
    for (int run = 0; run < 4; ++run) {
      for (int i = 0; i < 32; ++i) {
        const int byte = low[run % 2 * 32 + i];
        const int value = (run < 2 ? byte & 15 : byte >> 4) | ((high[i] >> (2 * run) & 3) << 4);
        const int element = half * 128 + run * 32 + i;
        const int8_t level = scales[element / 16];
        const float scale = d * static_cast<float>(level);
        out[element] = scale * static_cast<float>(value - 32);
      }
    }
  }
}

void DequantizeBlock(TensorType type, const uint8_t* block, float* out) {
  switch (type) {
    case TensorType::kF32: std::memcpy(out, block, 4); return;
    case TensorType::kF16: *out = LoadHalf(block); return;
    case TensorType::kBF16: *out = std::bit_cast<float>(static_cast<uint32_t>(Load16(block)) << 16); return;
    case TensorType::kQ4_0: Q4_0(block, out); return;
    case TensorType::kQ4_1: Q4_1(block, out); return;
    case TensorType::kQ5_0: Q5_0(block, out); return;
    case TensorType::kQ5_1: Q5_1(block, out); return;
    case TensorType::kQ8_0: Q8_0(block, out); return;
    case TensorType::kQ4_K: Q45_K(block, /*five_bits=*/false, out); return;
    case TensorType::kQ5_K: Q45_K(block, /*five_bits=*/true, out); return;
    case TensorType::kQ6_K: Q6_K(block, out); return;
  }
  TIDEPOOL_CHECK(false);
}

}  // namespace

void DequantizeRow(const TensorView& tensor, int64_t row, float* out) {
  TIDEPOOL_CHECK(row >= 0 && row < tensor.rows);
  const int elements = BlockElements(tensor.type), bytes = BlockBytes(tensor.type);
  TIDEPOOL_CHECK(tensor.columns % elements == 0);
  const uint8_t* block = tensor.data + static_cast<size_t>(row) * tensor.row_bytes();
  for (int64_t column = 0; column < tensor.columns; column += elements, block += bytes) {
    DequantizeBlock(tensor.type, block, out + column);
  }
}

}  // namespace tidepool
