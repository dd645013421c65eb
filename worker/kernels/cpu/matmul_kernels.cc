// Compiled once for each instruction set: see worker/kernels/CMakeLists.txt.
#include "worker/kernels/cpu/matmul_kernels.h"

#include <cstring>

#include "hwy/highway.h"
#include "worker/kernels/cpu/matmul_dot.h"

namespace tidepool::TIDEPOOL_ISA {
namespace {

// A tile in vectors of kLanes rows.
constexpr int kParts = kTileRows / kLanes;
// Activation rows that share one load of the weights: bounded by the accumulators that fit in registers.
constexpr int kMaxColumns = kLanes == 16 ? 8 : 4;
// The first activation rows meet weights that come from memory; the hardware prefetcher stops at page ends.
constexpr int kPrefetchBytes = 2048;

HWY_INLINE F32 LoadScales(const uint8_t* scales, int part, bool wide) {
  const DF32 d;
  if (wide) return hn::LoadU(d, reinterpret_cast<const float*>(scales) + part * kLanes);
  const hn::Rebind<hwy::float16_t, DF32> half;
  return hn::PromoteTo(d, hn::LoadU(half, reinterpret_cast<const hwy::float16_t*>(scales) + part * kLanes));
}

// The stored values of one block for the rows of a part: w[group] has 4 inputs in each lane.
template <int kBits>
HWY_INLINE void LoadValues(const uint8_t* block, int part, U8* HWY_RESTRICT w) {
  const DU8 d;
  const uint8_t* at = block + part * kLanes * 4;
  if constexpr (kBits == 8) {
    for (int group = 0; group < kBlockGroups; ++group) w[group] = hn::LoadU(d, at + group * kTileRows * 4);
  } else {
    const U8 low = hn::Set(d, 15);
    for (int run = 0; run < kBlockGroups / 2; ++run) {
      const U8 both = hn::LoadU(d, at + run * kTileRows * 4);
      w[2 * run] = hn::And(both, low);
      w[2 * run + 1] = hn::ShiftRight<4>(both);
    }
  }
}

HWY_INLINE void StoreResults(F32 sum, const TileJob& job, int64_t row, float* out) {
  const DF32 d;
  if (row + kLanes <= job.rows) {
    if (job.bias != nullptr) sum = hn::Add(sum, hn::LoadU(d, job.bias + row));
    hn::StoreU(sum, d, out + row);
    return;
  }
  HWY_ALIGN float lanes[kLanes];
  hn::Store(sum, d, lanes);
  for (int64_t i = 0; row + i < job.rows; ++i)
    out[row + i] = lanes[i] + (job.bias != nullptr ? job.bias[row + i] : 0.0f);
}

// One tile times kColumns activation rows from `column` on.
template <PackedFormat kFormat, int kColumns>
HWY_INLINE void MultiplyIntegerTile(const TileJob& job, int64_t tile, int64_t column) {
  constexpr PackedFormatFacts kFacts = FactsOf(kFormat);
  const DF32 d;
  const int64_t blocks = job.columns / kBlockInputs;
  for (int part = 0; part < kParts; ++part) {
    F32 sum[kColumns];
    for (int c = 0; c < kColumns; ++c) sum[c] = hn::Zero(d);
    const uint8_t* block = job.tiles + tile * job.tile_bytes;
    const ActivationBlock* x = job.blocks + column * blocks;
    for (int64_t b = 0; b < blocks; ++b, ++x, block += kFacts.block_bytes()) {
      if (column == 0) {
        for (size_t line = 0; line < kFacts.block_bytes(); line += 64) {
          __builtin_prefetch(block + kPrefetchBytes + line);
        }
      }
      U8 w[kBlockGroups];
      LoadValues<kFacts.value_bits>(block, part, w);
      const uint8_t* scales = block + kFacts.values_bytes();
      F32 scale[kFacts.scales];
      for (int i = 0; i < kFacts.scales; ++i) {
        scale[i] = LoadScales(scales + i * kFacts.scale_bytes(), part, kFacts.wide_scales);
      }
      F32 minimum = hn::Zero(d);
      if constexpr (kFacts.has_minimum) {
        minimum = LoadScales(scales + kFacts.scales * kFacts.scale_bytes(), part, kFacts.wide_scales);
      }
      for (int c = 0; c < kColumns; ++c) {
        const ActivationBlock& a = x[c * blocks];
        constexpr int kGroups = kFacts.scales > 0 ? kBlockGroups / kFacts.scales : 0;
        for (int i = 0; i < kFacts.scales; ++i) {
          const int32_t negative_sum = kFacts.scales == 1 ? a.negative_sum : a.negative_half[i];
          const I32 dot = DotGroups<kFacts.maximum, kFacts.offset, kGroups>(w + i * kGroups, a.values + i * kGroups * 4,
                                                                            negative_sum);
          const F32 product = hn::Mul(hn::Mul(hn::ConvertTo(d, dot), scale[i]), hn::Set(d, a.scale));
          sum[c] = hn::Add(sum[c], product);
        }
        if constexpr (kFacts.has_minimum) sum[c] = hn::Add(sum[c], hn::Mul(minimum, hn::Set(d, a.scaled_sum)));
      }
    }
    for (int c = 0; c < kColumns; ++c) {
      StoreResults(sum[c], job, tile * kTileRows + part * kLanes, job.out + (column + c) * job.out_stride);
    }
  }
}

HWY_INLINE F32 LoadElements(const float* from) { return hn::LoadU(DF32(), from); }
HWY_INLINE F32 LoadElements(const hwy::float16_t* from) {
  return hn::PromoteTo(DF32(), hn::LoadU(hn::Rebind<hwy::float16_t, DF32>(), from));
}
HWY_INLINE F32 LoadElements(const hwy::bfloat16_t* from) {
  return hn::PromoteTo(DF32(), hn::LoadU(hn::Rebind<hwy::bfloat16_t, DF32>(), from));
}

// kTiles tiles times kColumns activation rows: several sums in flight hide the latency of the additions.
template <typename T, int kTiles, int kColumns>
HWY_INLINE void MultiplyFloatTiles(const TileJob& job, int64_t tile, int64_t column) {
  const DF32 d;
  for (int part = 0; part < kParts; ++part) {
    F32 sum[kTiles][kColumns];
    for (int t = 0; t < kTiles; ++t) {
      for (int c = 0; c < kColumns; ++c) sum[t][c] = hn::Zero(d);
    }
    const uint8_t* tiles = job.tiles + tile * job.tile_bytes;
    const float* x = job.floats + column * job.columns;
    for (int64_t i = 0; i < job.columns; ++i) {
      for (int t = 0; t < kTiles; ++t) {
        const T* weights = reinterpret_cast<const T*>(tiles + t * job.tile_bytes) + i * kTileRows + part * kLanes;
        const F32 w = LoadElements(weights);
        for (int c = 0; c < kColumns; ++c) sum[t][c] = hn::MulAdd(w, hn::Set(d, x[c * job.columns + i]), sum[t][c]);
      }
    }
    for (int t = 0; t < kTiles; ++t) {
      for (int c = 0; c < kColumns; ++c) {
        StoreResults(sum[t][c], job, (tile + t) * kTileRows + part * kLanes, job.out + (column + c) * job.out_stride);
      }
    }
  }
}

template <PackedFormat kFormat>
struct IntegerTiles {
  static constexpr int kMaxTiles = 1;
  template <int kTiles, int kColumns>
  static HWY_INLINE void Multiply(const TileJob& job, int64_t tile, int64_t column) {
    MultiplyIntegerTile<kFormat, kColumns>(job, tile, column);
  }
};

template <typename T>
struct FloatTiles {
  static constexpr int kMaxTiles = 4;
  template <int kTiles, int kColumns>
  static HWY_INLINE void Multiply(const TileJob& job, int64_t tile, int64_t column) {
    MultiplyFloatTiles<T, kTiles, kColumns>(job, tile, column);
  }
};

// All tiles for kColumns activation rows.
template <class Tiles, int kColumns>
void MultiplyColumns(const TileJob& job, int64_t column) {
  int64_t tile = 0;
  if constexpr (Tiles::kMaxTiles > 1) {
    constexpr int kTiles = kColumns <= 2 ? Tiles::kMaxTiles : 2;
    for (; tile + kTiles <= job.tile_count; tile += kTiles) {
      Tiles::template Multiply<kTiles, kColumns>(job, tile, column);
    }
  }
  for (; tile < job.tile_count; ++tile) Tiles::template Multiply<1, kColumns>(job, tile, column);
}

// The activation rows from `column` on, kColumns at a time, the rest by halves of it.
template <class Tiles, int kColumns>
void MultiplyFrom(const TileJob& job, int64_t column) {
  for (; column + kColumns <= job.count; column += kColumns) MultiplyColumns<Tiles, kColumns>(job, column);
  if constexpr (kColumns > 1) {
    if (column < job.count) MultiplyFrom<Tiles, kColumns / 2>(job, column);
  }
}

template <class Tiles>
void MultiplyAll(const TileJob& job) {
  MultiplyFrom<Tiles, kMaxColumns>(job, 0);
}

void QuantizeBlock(const float* x, ActivationBlock* out) {
  const DF32 d;
  const DI32 di;
  // As integers, absolute values compare like floats, and NaN is above infinity.
  const I32 magnitude_bits = hn::Set(di, 0x7fffffff);
  I32 largest = hn::Zero(di);
  for (int i = 0; i < kBlockInputs; i += kLanes) {
    largest = hn::Max(largest, hn::And(hn::BitCast(di, hn::LoadU(d, x + i)), magnitude_bits));
  }
  const float maximum = hn::GetLane(hn::BitCast(d, hn::MaxOfLanes(di, largest)));
  // Below this the inverse overflows and products with any weight are nothing.
  constexpr float kSmallest = 1e-35f, kLargest = 3.4028234e38f;
  const bool finite = maximum <= kLargest;
  const float inverse = maximum < kSmallest || !finite ? 0.0f : 127.0f / maximum;
  const hn::Rebind<int8_t, DF32> bytes;
  int32_t half[2];
  for (int h = 0; h < 2; ++h) {
    I32 sum = hn::Zero(di);
    for (int i = h * kBlockInputs / 2; i < (h + 1) * kBlockInputs / 2; i += kLanes) {
      const I32 values = finite ? hn::NearestInt(hn::Mul(hn::LoadU(d, x + i), hn::Set(d, inverse))) : hn::Zero(di);
      hn::StoreU(hn::DemoteTo(bytes, values), bytes, out->values + i);
      sum = hn::Add(sum, values);
    }
    half[h] = hn::GetLane(hn::SumOfLanes(di, sum));
  }
  out->scale = !finite ? __builtin_nanf("") : maximum < kSmallest ? 0.0f : maximum / 127.0f;
  out->scaled_sum = out->scale * static_cast<float>(half[0] + half[1]);
  out->negative_sum = -(half[0] + half[1]);
  out->negative_half[0] = static_cast<int16_t>(-half[0]);
  out->negative_half[1] = static_cast<int16_t>(-half[1]);
}

void Quantize(const float* x, int64_t blocks, ActivationBlock* out) {
  for (int64_t i = 0; i < blocks; ++i) QuantizeBlock(x + i * kBlockInputs, out + i);
}

}  // namespace

extern const MatMulKernels kMatMulKernels;
const MatMulKernels kMatMulKernels = {
    Quantize,
    {MultiplyAll<FloatTiles<float>>, MultiplyAll<FloatTiles<hwy::float16_t>>, MultiplyAll<FloatTiles<hwy::bfloat16_t>>,
     MultiplyAll<IntegerTiles<PackedFormat::kQ4_0>>, MultiplyAll<IntegerTiles<PackedFormat::kQ4_1>>,
     MultiplyAll<IntegerTiles<PackedFormat::kQ4_K>>, MultiplyAll<IntegerTiles<PackedFormat::kQ5_0>>,
     MultiplyAll<IntegerTiles<PackedFormat::kQ5_1>>, MultiplyAll<IntegerTiles<PackedFormat::kQ5_K>>,
     MultiplyAll<IntegerTiles<PackedFormat::kQ6_K>>, MultiplyAll<IntegerTiles<PackedFormat::kQ8_0>>},
};

}  // namespace tidepool::TIDEPOOL_ISA
