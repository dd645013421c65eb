// Compiled once for each instruction set: see worker/kernels/CMakeLists.txt.
#include "worker/kernels/cpu/matmul_kernels.h"

#include <cstring>
#include <type_traits>

#include "hwy/highway.h"
#include "worker/kernels/cpu/matmul_dot.h"

namespace tidepool::TIDEPOOL_ISA {
namespace {

// A tile in vectors of kLanes rows.
constexpr int kParts = kTileRows / kLanes;
// Activation rows that share one load of the weights: bounded by the accumulators that fit in registers.
constexpr int kMostColumns = kLanes == 16 ? 8 : 4;
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

// One tile times kColumns activation rows: from the `first` on of the panel of kPanel rows that begins with `column`.
// All parts of a block are done before the next block, so that memory is waited for evenly.
template <PackedFormat kFormat, int kPanel, int kColumns>
HWY_INLINE void MultiplyIntegerTile(const TileJob& job, int64_t tile, int64_t column, int first) {
  constexpr PackedFormatFacts kFacts = FactsOf(kFormat);
  const DF32 d;
  const int64_t blocks = job.columns / kBlockInputs;
  F32 sum[kParts][kColumns];
  for (auto& of_part : sum) {
    for (F32& of : of_part) of = hn::Zero(d);
  }
  const uint8_t* block = job.tiles + tile * job.tile_bytes;
  const auto* x = reinterpret_cast<const PanelBlock<kPanel>*>(job.blocks + column * blocks);
  for (int64_t b = 0; b < blocks; ++b, ++x, block += kFacts.block_bytes()) {
    if (column == 0) {
      for (size_t line = 0; line < kFacts.block_bytes(); line += 64) __builtin_prefetch(block + kPrefetchBytes + line);
    }
    HWY_UNROLL(4)
    for (int part = 0; part < kParts; ++part) {
      U8 w[kBlockGroups];
      LoadValues<kFacts.value_bits>(block, part, w);
      const uint8_t* scales = block + kFacts.values_bytes();
      constexpr int kGroups = kFacts.scales > 0 ? kBlockGroups / kFacts.scales : 0;
      for (int i = 0; i < kFacts.scales; ++i) {
        I32 dot[kColumns];
        auto multiply = [&](const auto* negative_sums) HWY_ATTR {
          DotColumns<kFacts.maximum, kFacts.offset, kGroups, 4 * kPanel, kColumns>(
              w + i * kGroups, x->values[i * kGroups][first], negative_sums, dot);
        };
        if constexpr (kFacts.scales == 1) {
          multiply(x->negative_sum + first);
        } else {
          multiply(x->negative_half[i] + first);
        }
        const F32 scale = LoadScales(scales + i * kFacts.scale_bytes(), part, kFacts.wide_scales);
        HWY_UNROLL(8)
        for (int c = 0; c < kColumns; ++c) {
          const F32 scaled = hn::Mul(hn::ConvertTo(d, dot[c]), scale);
          sum[part][c] = hn::MulAdd(scaled, hn::Set(d, x->scale[first + c]), sum[part][c]);
        }
      }
      if constexpr (kFacts.has_minimum) {
        const F32 minimum = LoadScales(scales + kFacts.scales * kFacts.scale_bytes(), part, kFacts.wide_scales);
        HWY_UNROLL(8)
        for (int c = 0; c < kColumns; ++c) {
          sum[part][c] = hn::MulAdd(minimum, hn::Set(d, x->scaled_sum[first + c]), sum[part][c]);
        }
      }
    }
  }
  for (int part = 0; part < kParts; ++part) {
    for (int c = 0; c < kColumns; ++c) {
      StoreResults(sum[part][c], job, tile * kTileRows + part * kLanes,
                   job.out + (column + first + c) * job.out_stride);
    }
  }
}

#if defined(__SSSE3__) && !defined(__AVX512VNNI__)

// The stored values of one block as bytes, [group][kTileRows][4], in `to` if they are packed.
template <int kBits>
HWY_INLINE const uint8_t* UnpackValues(const uint8_t* block, uint8_t* to) {
  if constexpr (kBits == 8) return block;
  const DU8 d;
  const U8 low = hn::Set(d, 15);
  for (int run = 0; run < kBlockGroups / 2; ++run) {
    for (int at = 0; at < kTileRows * 4; at += kLanes * 4) {
      const U8 both = hn::LoadU(d, block + run * kTileRows * 4 + at);
      hn::Store(hn::And(both, low), d, to + 2 * run * kTileRows * 4 + at);
      hn::Store(hn::ShiftRight<4>(both), d, to + (2 * run + 1) * kTileRows * 4 + at);
    }
  }
  return to;
}

// What MultiplyPanels takes of a panel's rows at a time, as many as leave registers for two sums of each.
constexpr int kTogether = 4;

// A block times kTogether rows of a panel, from `first` on, added to sum[row][kParts]: of two parts of the tile, to
// which w, factors [scales, then minima][kTileRows] and sum point. Not inlined: what surrounds it would take its
// registers.
template <PackedFormat kFormat, int kPanel>
HWY_NOINLINE void AddBlock(const uint8_t* w, const float* factors, const PanelBlock<kPanel>& x, int first,
                           F32* HWY_RESTRICT sum) {
  constexpr PackedFormatFacts kFacts = FactsOf(kFormat);
  constexpr int kGroups = kBlockGroups / kFacts.scales;
  const DF32 d;
  auto add_scaled = [&](auto index, const auto* negative_sums) HWY_ATTR {
    constexpr int i = decltype(index)::value;
    auto add = [&](int c, int v, I32 dot) HWY_ATTR {
      F32& to = sum[c * kParts + v];
      const F32 scale = hn::Load(d, factors + i * kTileRows + v * kLanes);
      F32 with = hn::MulAdd(hn::Mul(hn::ConvertTo(d, dot), scale), hn::Set(d, x.scale[first + c]), to);
      if constexpr (kFacts.has_minimum && i + 1 == kFacts.scales) {
        const F32 minimum = hn::Load(d, factors + kFacts.scales * kTileRows + v * kLanes);
        with = hn::MulAdd(minimum, hn::Set(d, x.scaled_sum[first + c]), with);
      }
      to = with;
    };
    DotTwoVectors<kFacts.maximum, kFacts.offset, kGroups, 4 * kPanel, kTogether>(
        w + i * kGroups * kTileRows * 4, x.values[i * kGroups][first], negative_sums + first, add);
  };
  if constexpr (kFacts.scales == 1) {
    add_scaled(std::integral_constant<int, 0>(), x.negative_sum);
  } else {
    static_assert(kFacts.scales == 2);
    add_scaled(std::integral_constant<int, 0>(), x.negative_half[0]);
    add_scaled(std::integral_constant<int, 1>(), x.negative_half[1]);
  }
}

// One tile times panels: a block's values are unpacked once for all of them, and read from the first cache, so that
// registers hold sums. With the values in registers, as above, each input is read for one vector of outputs, not two.
template <PackedFormat kFormat, int kPanel, int kPanels>
HWY_INLINE void MultiplyPanels(const TileJob& job, int64_t tile, int64_t column) {
  constexpr PackedFormatFacts kFacts = FactsOf(kFormat);
  constexpr int kFactors = kFacts.scales + (kFacts.has_minimum ? 1 : 0);
  static_assert(kFacts.block_bytes() % (kLanes * 4) == 0);  // values are loaded by whole vectors
  const DF32 d;
  const int64_t blocks = job.columns / kBlockInputs;
  F32 sum[kPanels][kPanel * kParts];
  for (auto& of_panel : sum) {
    for (F32& of : of_panel) of = hn::Zero(d);
  }
  // Results go to as many places, far from each other: a store would wait for its line.
  for (int c = 0; c < kPanels * kPanel; ++c) {
    __builtin_prefetch(job.out + (column + c) * job.out_stride + tile * kTileRows, 1);
  }
  const uint8_t* block = job.tiles + tile * job.tile_bytes;
  const PanelBlock<kPanel>* x[kPanels];
  for (int p = 0; p < kPanels; ++p) {
    x[p] = reinterpret_cast<const PanelBlock<kPanel>*>(job.blocks + (column + p * kPanel) * blocks);
  }
  for (int64_t b = 0; b < blocks; ++b, block += kFacts.block_bytes()) {
    if (column == 0) {
      for (size_t line = 0; line < kFacts.block_bytes(); line += 64) __builtin_prefetch(block + kPrefetchBytes + line);
    }
    HWY_ALIGN uint8_t unpacked[kBlockGroups * kTileRows * 4];
    HWY_ALIGN float factors[kFactors * kTileRows];
    const uint8_t* w = UnpackValues<kFacts.value_bits>(block, unpacked);
    for (int i = 0; i < kFactors; ++i) {
      const uint8_t* of = block + kFacts.values_bytes() + i * kFacts.scale_bytes();
      for (int part = 0; part < kParts; ++part) {
        hn::Store(LoadScales(of, part, kFacts.wide_scales), d, factors + i * kTileRows + part * kLanes);
      }
    }
    for (int p = 0; p < kPanels; ++p) {
      for (int part = 0; part < kParts; part += 2) {
        for (int first = 0; first < kPanel; first += kTogether) {
          AddBlock<kFormat, kPanel>(w + part * kLanes * 4, factors + part * kLanes, x[p][b], first,
                                    sum[p] + first * kParts + part);
        }
      }
    }
  }
  for (int p = 0; p < kPanels; ++p) {
    for (int c = 0; c < kPanel; ++c) {
      for (int part = 0; part < kParts; ++part) {
        StoreResults(sum[p][c * kParts + part], job, tile * kTileRows + part * kLanes,
                     job.out + (column + p * kPanel + c) * job.out_stride);
      }
    }
  }
}

constexpr int kLeastPanel = kTogether;

#else

constexpr int kLeastPanel = kPanelRows + 1;  // none
template <PackedFormat kFormat, int kPanel, int kPanels>
HWY_INLINE void MultiplyPanels(const TileJob&, int64_t, int64_t) {}

#endif

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
  // Panels share the unpacking of a block's values, where there is any.
  static constexpr bool kUnpacks = kLeastPanel <= kPanelRows && FactsOf(kFormat).value_bits < 8;
  static constexpr int kMaxTiles = 1, kMaxColumns = (kUnpacks ? 4 : 1) * kPanelRows;
  template <int kTiles, int kColumns>
  static HWY_INLINE void Multiply(const TileJob& job, int64_t tile, int64_t column) {
    if constexpr (kColumns >= kLeastPanel) {
      constexpr int kPanel = kColumns < kPanelRows ? kColumns : kPanelRows;
      MultiplyPanels<kFormat, kPanel, kColumns / kPanel>(job, tile, column);
    } else {
      constexpr int kTogether = kColumns < kMostColumns ? kColumns : kMostColumns;
      for (int first = 0; first < kColumns; first += kTogether) {
        MultiplyIntegerTile<kFormat, kColumns, kTogether>(job, tile, column, first);
      }
    }
  }
};

template <typename T>
struct FloatTiles {
  static constexpr int kMaxTiles = 4, kMaxColumns = kMostColumns;
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
  MultiplyFrom<Tiles, Tiles::kMaxColumns>(job, 0);
}

using DF4 = hn::CappedTag<float, 4>;
using DI4 = hn::RebindToSigned<DF4>;

// Lane i: of all lanes of v[i]. `fold` takes two of them together, in any order.
template <typename Fold>
HWY_INLINE hn::Vec<DI4> FoldLanes(const I32* v, const Fold& fold) {
  const DI32 di;
  const hn::Repartition<int64_t, DI32> pairs;
  const I32 low = fold(hn::InterleaveLower(di, v[0], v[1]), hn::InterleaveUpper(di, v[0], v[1]));
  const I32 high = fold(hn::InterleaveLower(di, v[2], v[3]), hn::InterleaveUpper(di, v[2], v[3]));
  const auto a = hn::BitCast(pairs, low), b = hn::BitCast(pairs, high);
  HWY_ALIGN int32_t lanes[kLanes];
  hn::Store(fold(hn::BitCast(di, hn::InterleaveLower(pairs, a, b)), hn::BitCast(di, hn::InterleaveUpper(pairs, a, b))),
            di, lanes);
  hn::Vec<DI4> folded = hn::Load(DI4(), lanes);
  for (int i = 4; i < kLanes; i += 4) folded = fold(folded, hn::Load(DI4(), lanes + i));
  return folded;
}

// Row `row` of a panel's blocks: four at a time, so that what is one number for each is computed together.
template <int kRows>
void QuantizeRow(const float* x, int64_t blocks, int row, PanelBlock<kRows>* out) {
  constexpr int kTogether = 4;
  // Below this the inverse overflows and products with any weight are nothing.
  constexpr float kSmallest = 1e-35f, kLargest = 3.4028234e38f;
  const DF32 d;
  const DI32 di;
  const DF4 d4;
  const DI4 di4;
  for (int64_t first = 0; first < blocks; first += kTogether) {
    const int count = blocks - first < kTogether ? static_cast<int>(blocks - first) : kTogether;
    const float* from[kTogether];
    for (int b = 0; b < kTogether; ++b) from[b] = x + (first + (b < count ? b : 0)) * kBlockInputs;
    I32 of_block[kTogether];
    // As integers, absolute values compare like floats, and NaN is above infinity.
    for (int b = 0; b < kTogether; ++b) {
      of_block[b] = hn::Zero(di);
      for (int i = 0; i < kBlockInputs; i += kLanes) {
        const I32 magnitude = hn::And(hn::BitCast(di, hn::LoadU(d, from[b] + i)), hn::Set(di, 0x7fffffff));
        of_block[b] = hn::Max(of_block[b], magnitude);
      }
    }
    const auto maximum = hn::BitCast(d4, FoldLanes(of_block, [](auto a, auto b) HWY_ATTR { return hn::Max(a, b); }));
    const auto finite = hn::Le(maximum, hn::Set(d4, kLargest)), seen = hn::Ge(maximum, hn::Set(d4, kSmallest));
    const auto of_values = hn::Set(d4, 127.0f);
    HWY_ALIGN float inverse[kTogether], scale[kTogether], scaled_sum[kTogether];
    hn::Store(hn::IfThenElseZero(hn::And(finite, seen), hn::Div(of_values, maximum)), d4, inverse);
    const auto scales = hn::IfThenElse(finite, hn::IfThenElseZero(seen, hn::Div(maximum, of_values)),
                                       hn::Set(d4, __builtin_nanf("")));  // then the values do not matter
    hn::Store(scales, d4, scale);
    HWY_ALIGN int8_t values[kTogether][kBlockInputs];
    for (int b = 0; b < kTogether; ++b) {
      const hn::Rebind<int8_t, DF32> bytes;
      of_block[b] = hn::Zero(di);  // sums of both halves, 16 bits apart
      for (int i = 0; i < kBlockInputs; i += kLanes) {
        const I32 rounded = hn::NearestInt(hn::Mul(hn::LoadU(d, from[b] + i), hn::Set(d, inverse[b])));
        hn::StoreU(hn::DemoteTo(bytes, rounded), bytes, values[b] + i);
        of_block[b] = hn::Add(of_block[b], i < kBlockInputs / 2 ? rounded : hn::ShiftLeft<16>(rounded));
      }
    }
    const auto both = FoldLanes(of_block, [](auto a, auto b) HWY_ATTR { return hn::Add(a, b); });
    const auto low = hn::ShiftRight<16>(hn::ShiftLeft<16>(both)), high = hn::ShiftRight<16>(hn::Sub(both, low));
    const auto sum = hn::Add(low, high);
    HWY_ALIGN int32_t negative_sum[kTogether], negative_low[kTogether], negative_high[kTogether];
    hn::Store(hn::Mul(scales, hn::ConvertTo(d4, sum)), d4, scaled_sum);
    hn::Store(hn::Neg(sum), di4, negative_sum);
    hn::Store(hn::Neg(low), di4, negative_low);
    hn::Store(hn::Neg(high), di4, negative_high);
    for (int b = 0; b < count; ++b) {
      PanelBlock<kRows>& block = out[first + b];
      for (int group = 0; group < kBlockGroups; ++group)
        std::memcpy(block.values[group][row], values[b] + 4 * group, 4);
      block.scale[row] = scale[b];
      block.scaled_sum[row] = scaled_sum[b];
      block.negative_sum[row] = negative_sum[b];
      block.negative_half[0][row] = static_cast<int16_t>(negative_low[b]);
      block.negative_half[1][row] = static_cast<int16_t>(negative_high[b]);
    }
  }
}

// The rows from `row` on, in panels of kRows, the rest in panels of half as many.
template <int kRows>
void QuantizeFrom(const float* x, int64_t row, int64_t count, int64_t columns, int64_t first, int64_t end,
                  ActivationBlock* out) {
  const int64_t blocks = columns / kBlockInputs;
  for (; row + kRows <= count; row += kRows) {
    auto* panel = reinterpret_cast<PanelBlock<kRows>*>(out + row * blocks);
    for (int r = 0; r < kRows; ++r) {
      QuantizeRow(x + (row + r) * columns + first * kBlockInputs, end - first, r, panel + first);
    }
  }
  if constexpr (kRows > 1) {
    if (row < count) QuantizeFrom<kRows / 2>(x, row, count, columns, first, end, out);
  }
}

void Quantize(const float* x, int64_t count, int64_t columns, int64_t first, int64_t end, ActivationBlock* out) {
  QuantizeFrom<kPanelRows>(x, 0, count, columns, first, end, out);
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
