// Block layouts: the comments in worker/model/dequantize.cc. The products of K types are formed as there, so that the
// effective scale is the same float32.
#include "worker/kernels/cpu/packed_source.h"

#include <bit>
#include <cstring>

#include "base/check.h"

namespace tidepool {

uint16_t Load16(const uint8_t* p) {
  uint16_t value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

float HalfToFloat(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t exponent = (half >> 10) & 0x1f, mantissa = half & 0x3ff;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
}

namespace {

uint32_t Load32(const uint8_t* p) {
  uint32_t value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

// 16 bytes: low nibbles are inputs 0..15, high nibbles 16..31.
void ReadNibbles(const uint8_t* bytes, uint8_t* values) {
  for (int i = 0; i < 16; ++i) {
    values[i] = bytes[i] & 15;
    values[i + 16] = bytes[i] >> 4;
  }
}

void AddFifthBits(uint32_t bits, uint8_t* values) {
  for (int i = 0; i < 32; ++i) values[i] |= (bits >> i & 1) << 4;
}

void ReadQ45K(const uint8_t* super, bool five_bits, int group, SourceBlock* out) {
  const uint8_t* packed = super + 4;
  int scale, minimum;
  if (group < 4) {
    scale = packed[group] & 63;
    minimum = packed[group + 4] & 63;
  } else {
    scale = (packed[group + 4] & 15) | (packed[group - 4] >> 6 << 4);
    minimum = (packed[group + 4] >> 4) | (packed[group] >> 6 << 4);
  }
  out->scale[0] = HalfToFloat(Load16(super)) * static_cast<float>(scale);
  out->minimum = -(HalfToFloat(Load16(super + 2)) * static_cast<float>(minimum));
  const uint8_t* fifth = super + 16;
  const uint8_t* bytes = super + (five_bits ? 48 : 16) + group / 2 * 32;
  for (int i = 0; i < 32; ++i) {
    out->values[i] = group % 2 == 0 ? bytes[i] & 15 : bytes[i] >> 4;
    if (five_bits) out->values[i] |= (fifth[i] >> group & 1) << 4;
  }
}

void ReadQ6K(const uint8_t* super, int group, SourceBlock* out) {
  const int half = group / 4, run = group % 4;
  const uint8_t* low = super + half * 64 + run % 2 * 32;
  const uint8_t* high = super + 128 + half * 32;
  for (int i = 0; i < 32; ++i) {
    out->values[i] = (run < 2 ? low[i] & 15 : low[i] >> 4) | ((high[i] >> (2 * run) & 3) << 4);
  }
  const float d = HalfToFloat(Load16(super + 208));
  for (int i = 0; i < 2; ++i) {
    out->scale[i] = d * static_cast<float>(static_cast<int8_t>(super[192 + 2 * group + i]));
  }
}

}  // namespace

PackedFormat FormatOf(TensorType type) {
  switch (type) {
    case TensorType::kF32: return PackedFormat::kF32;
    case TensorType::kF16: return PackedFormat::kF16;
    case TensorType::kBF16: return PackedFormat::kBF16;
    case TensorType::kQ4_0: return PackedFormat::kQ4_0;
    case TensorType::kQ4_1: return PackedFormat::kQ4_1;
    case TensorType::kQ4_K: return PackedFormat::kQ4_K;
    case TensorType::kQ5_0: return PackedFormat::kQ5_0;
    case TensorType::kQ5_1: return PackedFormat::kQ5_1;
    case TensorType::kQ5_K: return PackedFormat::kQ5_K;
    case TensorType::kQ6_K: return PackedFormat::kQ6_K;
    case TensorType::kQ8_0: return PackedFormat::kQ8_0;
  }
  TIDEPOOL_CHECK(false);
  return PackedFormat::kF32;
}

SourceBlock ReadSourceBlock(TensorType type, const uint8_t* row, int64_t block) {
  const int blocks_per_source = BlockElements(type) / kBlockInputs;
  const uint8_t* p = row + block / blocks_per_source * BlockBytes(type);
  const int group = static_cast<int>(block % blocks_per_source);
  SourceBlock out = {};
  switch (type) {
    case TensorType::kQ4_0:
      out.half_scale = Load16(p);
      ReadNibbles(p + 2, out.values);
      break;
    case TensorType::kQ4_1:
      out.half_scale = Load16(p);
      out.half_minimum = Load16(p + 2);
      ReadNibbles(p + 4, out.values);
      break;
    case TensorType::kQ5_0:
      out.half_scale = Load16(p);
      ReadNibbles(p + 6, out.values);
      AddFifthBits(Load32(p + 2), out.values);
      break;
    case TensorType::kQ5_1:
      out.half_scale = Load16(p);
      out.half_minimum = Load16(p + 2);
      ReadNibbles(p + 8, out.values);
      AddFifthBits(Load32(p + 4), out.values);
      break;
    case TensorType::kQ8_0:
      out.half_scale = Load16(p);
      for (int i = 0; i < 32; ++i) out.values[i] = p[2 + i] ^ 0x80;  // + 128
      break;
    case TensorType::kQ4_K: ReadQ45K(p, /*five_bits=*/false, group, &out); break;
    case TensorType::kQ5_K: ReadQ45K(p, /*five_bits=*/true, group, &out); break;
    case TensorType::kQ6_K: ReadQ6K(p, group, &out); break;
    default: TIDEPOOL_CHECK(false);
  }
  return out;
}

}  // namespace tidepool
