// Compiled once for each instruction set: see worker/kernels/CMakeLists.txt.
#include "hwy/highway.h"
#include "worker/kernels/cpu/product_scan.h"

namespace tidepool::TIDEPOOL_ISA {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

constexpr int kRows = 16;      // of a tile
constexpr int kQueryTile = 4;  // queries that share one reading of the codes
using D = hn::CappedTag<float, kRows>;
using DI = hn::RebindToSigned<D>;
using V = hn::Vec<D>;

// Sixteen entries fit a register of sixteen lanes; else, and for 256, they are gathered.
template <bool kInRegister>
HWY_INLINE V Entries(D d, const float* table, hn::Vec<DI> codes) {
  if constexpr (kInRegister) {
    return hn::TableLookupLanes(hn::LoadU(d, table), hn::IndicesFromVec(d, codes));
  } else {
    return hn::GatherIndex(d, table, codes);
  }
}

template <bool kFourBits, bool kInRegister>
void Scan(const ProductScanTask& task) {
  const D d;
  const DI di;
  const hn::Rebind<uint8_t, D> d8;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const int entries = kFourBits ? 16 : 256, group_bytes = kFourBits ? kRows / 2 : kRows;
  HWY_ALIGN uint8_t unpacked[kRows];
  for (int tile = 0; tile < task.tiles; ++tile) {
    const uint8_t* codes = task.codes + static_cast<int64_t>(tile) * task.groups * group_bytes;
    for (int first = 0; first < task.queries; first += kQueryTile) {
      const int count = task.queries - first < kQueryTile ? task.queries - first : kQueryTile;
      for (int part = 0; part < kRows; part += lanes) {
        V sum[kQueryTile];
        for (int j = 0; j < kQueryTile; ++j) sum[j] = hn::Zero(d);
        for (int g = 0; g < task.groups; ++g) {
          const uint8_t* group = codes + static_cast<int64_t>(g) * group_bytes;
          if constexpr (kFourBits) {
            uint64_t word;
            __builtin_memcpy(&word, group, 8);
            const uint64_t low = word & 0x0f0f0f0f0f0f0f0fULL, high = (word >> 4) & 0x0f0f0f0f0f0f0f0fULL;
            __builtin_memcpy(unpacked, &low, 8);
            __builtin_memcpy(unpacked + 8, &high, 8);
            group = unpacked;
          }
          const hn::Vec<DI> index = hn::PromoteTo(di, hn::LoadU(d8, group + part));
          for (int j = 0; j < kQueryTile; ++j) {
            if (j >= count) break;
            const float* table = task.tables[first + j] + static_cast<int64_t>(g) * entries;
            sum[j] = hn::Add(sum[j], Entries<kInRegister>(d, table, index));
          }
        }
        for (int j = 0; j < count; ++j) hn::StoreU(sum[j], d, task.scores[first + j] + tile * kRows + part);
      }
    }
  }
}

void ScanImpl(const ProductScanTask& task) {
  constexpr bool kWide = hn::MaxLanes(D()) == kRows;
  if (task.bits == 4) {
    Scan<true, kWide>(task);
  } else {
    Scan<false, false>(task);
  }
}

}  // namespace

extern const ProductScanKernels kProductScanKernels;
const ProductScanKernels kProductScanKernels = {ScanImpl};

}  // namespace tidepool::TIDEPOOL_ISA
