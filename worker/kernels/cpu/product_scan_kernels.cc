// Compiled once for each instruction set: see worker/kernels/CMakeLists.txt.
#include "hwy/highway.h"
#include "worker/kernels/cpu/product_scan.h"

namespace tidepool::TIDEPOOL_ISA {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

constexpr int kRows = 16;         // of a tile
constexpr int kQueryTile = 4;     // queries that share one reading of the codes
constexpr int64_t kAhead = 2048;  // bytes
using D = hn::CappedTag<float, kRows>;
using DI = hn::RebindToSigned<D>;
using V = hn::Vec<D>;

// 8 bits: entries are gathered.
void ScanBytes(const ProductScanTask& task) {
  const D d;
  const DI di;
  const hn::Rebind<uint8_t, D> d8;
  const int lanes = static_cast<int>(hn::Lanes(d));
  for (int tile = 0; tile < task.tiles; ++tile) {
    const uint8_t* codes = task.codes + static_cast<int64_t>(tile) * task.groups * kRows;
    for (int first = 0; first < task.queries; first += kQueryTile) {
      const int count = task.queries - first < kQueryTile ? task.queries - first : kQueryTile;
      for (int part = 0; part < kRows; part += lanes) {
        V sum[kQueryTile];
        for (int j = 0; j < kQueryTile; ++j) sum[j] = hn::Zero(d);
        for (int g = 0; g < task.groups; ++g) {
          const hn::Vec<DI> index = hn::PromoteTo(di, hn::LoadU(d8, codes + static_cast<int64_t>(g) * kRows + part));
          for (int j = 0; j < kQueryTile; ++j) {
            if (j >= count) break;
            const float* table = task.tables[first + j] + static_cast<int64_t>(g) * 256;
            sum[j] = hn::Add(sum[j], hn::GatherIndex(d, table, index));
          }
        }
        for (int j = 0; j < count; ++j) hn::StoreU(sum[j], d, task.scores[first + j] + tile * kRows + part);
      }
    }
  }
}

// kTiles blocks of 16 bytes, `stride` bytes apart.
template <int kTiles>
HWY_INLINE hn::Vec<hn::FixedTag<uint8_t, 16 * kTiles>> LoadBlocks(const uint8_t* from, int64_t stride) {
  const hn::FixedTag<uint8_t, 16 * kTiles> d8;
  if constexpr (kTiles == 1) {
    return hn::LoadU(d8, from);
  } else {
    return hn::Combine(d8, LoadBlocks<kTiles / 2>(from + kTiles / 2 * stride, stride),
                       LoadBlocks<kTiles / 2>(from, stride));
  }
}

// The 16 bytes of a register that are tile kTile's.
template <int kTile, int kTiles>
HWY_INLINE hn::Vec<hn::FixedTag<uint16_t, 8>> BlockOf(hn::Vec<hn::FixedTag<uint16_t, 8 * kTiles>> blocks) {
  if constexpr (kTiles == 1) {
    return blocks;
  } else {
    const hn::FixedTag<uint16_t, 4 * kTiles> half;
    if constexpr (kTile < kTiles / 2) {
      return BlockOf<kTile, kTiles / 2>(hn::LowerHalf(half, blocks));
    } else {
      return BlockOf<kTile - kTiles / 2, kTiles / 2>(hn::UpperHalf(half, blocks));
    }
  }
}

// Sums of tiles from kTile on, of each the first eight rows and the others, as scores: sum * step + offset.
template <int kTile, int kTiles>
HWY_INLINE void StoreScores(hn::Vec<hn::FixedTag<uint16_t, 8 * kTiles>> first_rows,
                            hn::Vec<hn::FixedTag<uint16_t, 8 * kTiles>> last_rows, V offset, V step, float* scores) {
  if constexpr (kTile < kTiles) {
    const D d;
    const DI di;
    auto store = [&](auto sums, float* to) HWY_ATTR {
      hn::StoreU(hn::Add(offset, hn::Mul(step, hn::ConvertTo(d, hn::PromoteTo(di, sums)))), d, to);
    };
    const auto first = BlockOf<kTile, kTiles>(first_rows), last = BlockOf<kTile, kTiles>(last_rows);
    // In registers: memory that was written in halves is slow to read as a whole.
    if constexpr (hn::MaxLanes(D()) == kRows) {
      store(hn::Combine(hn::FixedTag<uint16_t, hn::MaxLanes(D())>(), last, first), scores);
    } else if constexpr (hn::MaxLanes(D()) == kRows / 2) {
      store(first, scores);
      store(last, scores + kRows / 2);
    } else {
      const hn::FixedTag<uint16_t, 4> half;
      store(hn::LowerHalf(half, first), scores);
      store(hn::UpperHalf(half, first), scores + 4);
      store(hn::LowerHalf(half, last), scores + 8);
      store(hn::UpperHalf(half, last), scores + 12);
    }
    StoreScores<kTile + 1, kTiles>(first_rows, last_rows, offset, step, scores + kRows);
  }
}

// 4 bits. A block of 16 bytes holds two groups of a tile; a register holds that block of kTiles tiles.
template <int kTiles, int kQueries>
HWY_INLINE void ScanNibblesOf(const ProductScanTask& task, int tile, int first) {
  using D8 = hn::FixedTag<uint8_t, 16 * kTiles>;
  using D16 = hn::RepartitionToWide<D8>;
  const D8 d8;
  const D16 d16;
  const hn::Repartition<uint64_t, D8> d64;
  const int64_t tile_bytes = int64_t{task.groups} * kRows / 2;
  const uint8_t* codes = task.codes + tile * tile_bytes;
  if (first == 0) {  // codes come from memory, and the machine reads ahead only within a page of it
    for (int64_t line = 0; line < kTiles * tile_bytes; line += 64) __builtin_prefetch(codes + kAhead + line);
  }
  const auto nibble = hn::Set(d8, uint8_t{0x0f});
  hn::Vec<D16> both_rows[kQueries], odd_rows[kQueries];
  for (int j = 0; j < kQueries; ++j) both_rows[j] = odd_rows[j] = hn::Zero(d16);
  for (int g = 0; g < task.groups; g += 2) {
    const auto both = LoadBlocks<kTiles>(codes + g * (kRows / 2), tile_bytes);
    const auto low = hn::BitCast(d64, hn::And(both, nibble));
    const auto high = hn::BitCast(d64, hn::And(hn::BitCast(d8, hn::ShiftRight<4>(hn::BitCast(d16, both))), nibble));
    const auto first_codes = hn::BitCast(d8, hn::InterleaveLower(d64, low, high));
    const auto second_codes = hn::BitCast(d8, hn::InterleaveUpper(d64, low, high));
    for (int j = 0; j < kQueries; ++j) {
      const uint8_t* entries = task.entries[first + j] + g * 16;
      const auto sum = hn::Add(hn::TableLookupBytes(hn::LoadDup128(d8, entries), first_codes),
                               hn::TableLookupBytes(hn::LoadDup128(d8, entries + 16), second_codes));
      // A pair of rows lies in 16 bits: the sums of the odd one, and those of both, from which they are taken in the
      // end.
      both_rows[j] = hn::Add(both_rows[j], hn::BitCast(d16, sum));
      odd_rows[j] = hn::Add(odd_rows[j], hn::ShiftRight<8>(hn::BitCast(d16, sum)));
    }
  }
  // Block t of the lower halves has the first eight rows of tile t, that of the upper ones the others.
  const D d;
  for (int j = 0; j < kQueries; ++j) {
    const auto even_rows = hn::Sub(both_rows[j], hn::ShiftLeft<8>(odd_rows[j]));
    StoreScores<0, kTiles>(hn::InterleaveLower(d16, even_rows, odd_rows[j]),
                           hn::InterleaveUpper(d16, even_rows, odd_rows[j]), hn::Set(d, task.offset[first + j]),
                           hn::Set(d, task.step[first + j]),
                           task.scores[first + j] + static_cast<int64_t>(tile) * kRows);
  }
}

template <int kTiles>
void ScanNibbles(const ProductScanTask& task, int tile) {
  for (int first = 0; first < task.queries; first += kQueryTile) {
    switch (task.queries - first) {
      case 1: ScanNibblesOf<kTiles, 1>(task, tile, first); break;
      case 2: ScanNibblesOf<kTiles, 2>(task, tile, first); break;
      case 3: ScanNibblesOf<kTiles, 3>(task, tile, first); break;
      default: ScanNibblesOf<kTiles, 4>(task, tile, first); break;
    }
  }
}

void ScanImpl(const ProductScanTask& task) {
  if (task.bits != 4) return ScanBytes(task);
  int tile = 0;
  if constexpr (hn::MaxLanes(hn::ScalableTag<uint8_t>()) >= 64) {
    for (; tile + 4 <= task.tiles; tile += 4) ScanNibbles<4>(task, tile);
  }
  if constexpr (hn::MaxLanes(hn::ScalableTag<uint8_t>()) >= 32) {
    for (; tile + 2 <= task.tiles; tile += 2) ScanNibbles<2>(task, tile);
  }
  for (; tile < task.tiles; ++tile) ScanNibbles<1>(task, tile);
}

void RoundedTableImpl(const RoundedTableTask& task, RoundedScale* result) {
  const D d;
  const DI di;
  const hn::Rebind<uint8_t, D> d8;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const V zero = hn::Zero(d);
  V poison = zero;  // not a number when an entry is not one, or infinite
  float lows_sum = 0, widest = 0;
  for (int g = 0; g < task.groups; ++g) {
    float constant = 0;
    for (int i = g * task.width; i < (g + 1) * task.width; ++i) {
      constant += task.query[task.channel[i]] * task.offset[i];
    }
    V low, high;
    for (int part = 0; part < kRows; part += lanes) {
      V entry = hn::Set(d, constant);
      for (int i = g * task.width; i < (g + 1) * task.width; ++i) {
        const V factor = hn::Set(d, task.query[task.channel[i]] * task.scale[i]);
        const auto level = hn::PromoteTo(di, hn::LoadU(d8, task.centroid + i * kRows + part));
        entry = hn::Add(entry, hn::Mul(factor, hn::ConvertTo(d, level)));
      }
      hn::StoreU(entry, d, task.table + g * kRows + part);
      poison = hn::Add(poison, hn::Mul(entry, zero));
      low = part == 0 ? entry : hn::Min(low, entry);
      high = part == 0 ? entry : hn::Max(high, entry);
    }
    const float least = hn::GetLane(hn::MinOfLanes(d, low));
    const float range = hn::GetLane(hn::MaxOfLanes(d, high)) - least;
    lows_sum += least;
    widest = range > widest ? range : widest;
  }
  constexpr float kMost = 127;
  const float step = widest / kMost;
  result->offset = lows_sum;
  const bool numbers = hn::GetLane(hn::SumOfLanes(d, poison)) == 0 && step > 0 && step <= hwy::HighestValue<float>();
  result->step = numbers ? step : 0;
  const V inverse = hn::Set(d, 1 / step), half = hn::Set(d, 0.5f), most = hn::Set(d, kMost);
  for (int g = 0; g < task.groups; ++g) {
    float* table = task.table + g * kRows;
    V low = hn::LoadU(d, table);
    for (int part = lanes; part < kRows; part += lanes) low = hn::Min(low, hn::LoadU(d, table + part));
    low = hn::MinOfLanes(d, low);
    for (int part = 0; part < kRows; part += lanes) {
      const V level = hn::Add(hn::Mul(hn::Sub(hn::LoadU(d, table + part), low), inverse), half);
      const V entry = numbers ? hn::Min(level, most) : zero;
      hn::StoreU(hn::DemoteTo(d8, hn::ConvertTo(di, entry)), d8, task.entries + g * kRows + part);
    }
  }
}

}  // namespace

extern const ProductScanKernels kProductScanKernels;
const ProductScanKernels kProductScanKernels = {ScanImpl, RoundedTableImpl};

}  // namespace tidepool::TIDEPOOL_ISA
