#include "worker/kernels/cpu/packed_matrix.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "base/check.h"
#include "worker/kernels/cpu/packed_source.h"

namespace tidepool {
namespace {

constexpr size_t kAlignment = 64;

size_t RoundUp(size_t value, size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// Row `row` of a tile, of a zeroed block.
void PlaceValues(const uint8_t* values, int value_bits, int row, uint8_t* block) {
  for (int group = 0; group < kBlockGroups; ++group) {
    if (value_bits == 8) {
      std::memcpy(block + (group * kTileRows + row) * 4, values + group * 4, 4);
    } else {
      uint8_t* run = block + (group / 2 * kTileRows + row) * 4;
      for (int i = 0; i < 4; ++i) run[i] |= static_cast<uint8_t>(values[group * 4 + i] << (group % 2 * 4));
    }
  }
}

void PlaceScales(const SourceBlock& source, const PackedFormatFacts& facts, int row, uint8_t* block) {
  uint8_t* at = block + facts.values_bytes();
  if (!facts.wide_scales) {
    std::memcpy(at + row * 2, &source.half_scale, 2);
    if (facts.has_minimum) std::memcpy(at + (kTileRows + row) * 2, &source.half_minimum, 2);
    return;
  }
  for (int i = 0; i < facts.scales; ++i) std::memcpy(at + (i * kTileRows + row) * 4, &source.scale[i], 4);
  if (facts.has_minimum) std::memcpy(at + (facts.scales * kTileRows + row) * 4, &source.minimum, 4);
}

// The i-th array of scales, or the minima behind them.
float ScaleAt(const uint8_t* scales, const PackedFormatFacts& facts, int i, int row) {
  const uint8_t* at = scales + i * facts.scale_bytes();
  if (!facts.wide_scales) return HalfToFloat(Load16(at + row * 2));
  float scale;
  std::memcpy(&scale, at + row * 4, sizeof scale);
  return scale;
}

TensorType TypeOf(PackedFormat float_format) {
  switch (float_format) {
    case PackedFormat::kF16: return TensorType::kF16;
    case PackedFormat::kBF16: return TensorType::kBF16;
    default: return TensorType::kF32;
  }
}

void PackIntegerRow(const TensorView& tensor, const PackedFormatFacts& facts, int64_t row, uint8_t* tile) {
  const uint8_t* source = tensor.data + static_cast<size_t>(row) * tensor.row_bytes();
  const int row_in_tile = static_cast<int>(row % kTileRows);
  for (int64_t block = 0; block < tensor.columns / kBlockInputs; ++block, tile += facts.block_bytes()) {
    const SourceBlock values = ReadSourceBlock(tensor.type, source, block);
    PlaceValues(values.values, facts.value_bits, row_in_tile, tile);
    PlaceScales(values, facts, row_in_tile, tile);
  }
}

void PackFloatRow(const uint8_t* source, size_t element_bytes, int64_t row, int64_t columns, uint8_t* tile) {
  uint8_t* at = tile + static_cast<size_t>(row % kTileRows) * element_bytes;
  for (int64_t i = 0; i < columns; ++i) {
    std::memcpy(at + static_cast<size_t>(i) * kTileRows * element_bytes, source + i * element_bytes, element_bytes);
  }
}

}  // namespace

PackedMatrix::PackedMatrix() : data_(std::make_unique<Data>()) {}
PackedMatrix::PackedMatrix(PackedMatrix&&) noexcept = default;
PackedMatrix& PackedMatrix::operator=(PackedMatrix&&) noexcept = default;
PackedMatrix::~PackedMatrix() = default;

int64_t PackedMatrix::rows() const { return data_->rows; }
int64_t PackedMatrix::columns() const { return data_->columns; }
size_t PackedMatrix::bytes() const { return static_cast<size_t>(data_->tiles) * data_->tile_bytes; }
bool PackedMatrix::is_float() const { return FactsOf(data_->format).is_float(); }

void PackedMatrix::ReadRow(int64_t row, float* out) const {
  const Data& data = *data_;
  TIDEPOOL_CHECK(row >= 0 && row < data.rows);
  const PackedFormatFacts facts = FactsOf(data.format);
  const uint8_t* block = data.bytes + static_cast<size_t>(row / kTileRows) * data.tile_bytes;
  const int row_in_tile = static_cast<int>(row % kTileRows);
  if (facts.is_float()) {
    const size_t element_bytes = facts.value_bits / 8;
    std::vector<uint8_t> elements(data.columns * element_bytes);
    for (int64_t i = 0; i < data.columns; ++i) {
      std::memcpy(&elements[i * element_bytes], block + (i * kTileRows + row_in_tile) * element_bytes, element_bytes);
    }
    DequantizeRow({.type = TypeOf(data.format), .rows = 1, .columns = data.columns, .data = elements.data()}, 0, out);
    return;
  }
  for (int64_t b = 0; b < data.columns / kBlockInputs; ++b, block += facts.block_bytes(), out += kBlockInputs) {
    const uint8_t* scales = block + facts.values_bytes();
    const float minimum = facts.has_minimum ? ScaleAt(scales, facts, facts.scales, row_in_tile) : 0.0f;
    for (int i = 0; i < kBlockInputs; ++i) {
      const int group = i / 4;
      const uint8_t* at = block + ((facts.value_bits == 8 ? group : group / 2) * kTileRows + row_in_tile) * 4 + i % 4;
      const int value = facts.value_bits == 8 ? *at : *at >> (group % 2 * 4) & 15;
      const float scale = ScaleAt(scales, facts, i * facts.scales / kBlockInputs, row_in_tile);
      const float product = scale * static_cast<float>(value - facts.offset);
      out[i] = facts.has_minimum ? product + minimum : product;
    }
  }
}

PackedMatrix PackedMatrix::Pack(const TensorView& tensor, bool as_f32, ThreadTeam& team, HugeMemory& memory) {
  TIDEPOOL_CHECK(tensor.rows > 0 && tensor.columns > 0 && !tensor.empty());
  PackedMatrix matrix;
  Data& data = *matrix.data_;
  data.format = as_f32 ? PackedFormat::kF32 : FormatOf(tensor.type);
  data.rows = tensor.rows;
  data.columns = tensor.columns;
  data.tiles = (tensor.rows + kTileRows - 1) / kTileRows;
  const PackedFormatFacts facts = FactsOf(data.format);
  if (facts.is_float()) {
    data.tile_bytes = RoundUp(static_cast<size_t>(tensor.columns) * kTileRows * facts.value_bits / 8, kAlignment);
  } else {
    TIDEPOOL_CHECK(tensor.columns % kBlockInputs == 0);
    data.tile_bytes = RoundUp(static_cast<size_t>(tensor.columns / kBlockInputs) * facts.block_bytes(), kAlignment);
  }
  data.bytes = memory.Take(matrix.bytes());

  team.ForEach(data.tiles, 1, [&](int64_t first, int64_t last) {
    std::vector<float> floats(as_f32 ? static_cast<size_t>(tensor.columns) : 0);
    for (int64_t t = first; t < last; ++t) {
      uint8_t* tile = data.bytes + static_cast<size_t>(t) * data.tile_bytes;
      for (int64_t row = t * kTileRows; row < std::min((t + 1) * kTileRows, tensor.rows); ++row) {
        if (as_f32) {
          DequantizeRow(tensor, row, floats.data());
          PackFloatRow(reinterpret_cast<const uint8_t*>(floats.data()), sizeof(float), row, tensor.columns, tile);
        } else if (facts.is_float()) {
          PackFloatRow(tensor.data + static_cast<size_t>(row) * tensor.row_bytes(), facts.value_bits / 8, row,
                       tensor.columns, tile);
        } else {
          PackIntegerRow(tensor, facts, row, tile);
        }
      }
    }
  });
  return matrix;
}

}  // namespace tidepool
