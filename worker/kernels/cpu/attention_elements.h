// Keys and values as they lie in pages, as vectors of floats. Included by kernel sources only, each compiled with
// TIDEPOOL_ISA.
#ifndef TIDEPOOL_WORKER_KERNELS_CPU_ATTENTION_ELEMENTS_H_
#define TIDEPOOL_WORKER_KERNELS_CPU_ATTENTION_ELEMENTS_H_

#include <cstdint>

#include "hwy/highway.h"
#include "worker/kernels/cpu/attention.h"
#include "worker/kernels/cpu/lane_numbers.h"

// Of a lambda that is called for each vector: as a function it would take all registers.
#define TIDEPOOL_INLINED __attribute__((always_inline))

namespace tidepool::TIDEPOOL_ISA {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

constexpr int kSlots = 16;
using D = hn::CappedTag<float, kSlots>;
using V = hn::Vec<D>;
constexpr int kLanes = hn::MaxLanes(D());

// Into the second cache. The first can wait for few lines at once: where memory is quick but far, as many as it can
// wait for are less than what memory gives. From the second one a line comes while others are worked on.
HWY_INLINE void AskForLine(const void* at) { __builtin_prefetch(at, 0, 2); }

HWY_INLINE V LoadElements(D d, const float* from) { return hn::LoadU(d, from); }
HWY_INLINE V LoadElements(D d, const hwy::float16_t* from) {
  return hn::PromoteTo(d, hn::LoadU(hn::Rebind<hwy::float16_t, D>(), from));
}

// order[0 .. kSlots) are slots side by side.
HWY_INLINE bool Beside(const int32_t* order) {
  const hn::RebindToSigned<D> di;
  bool beside = true;
  for (int part = 0; part < kSlots && beside; part += kLanes) {
    beside = hn::AllTrue(di, hn::Eq(hn::LoadU(di, order + part), LanesFrom(di, order[0] + part)));
  }
  return beside;
}

// Of a vector with keys, one for each lane, by its products with them and its length, and the squares of theirs.
HWY_INLINE V Cosine(V products, float length, V squares) {
  const D d;
  const V least = hn::Set(d, 1e-12f);  // of a length
  const V lengths = hn::Mul(hn::Max(hn::Set(d, length), least), hn::Max(hn::Sqrt(squares), least));
  return hn::Div(products, lengths);
}

// Those of a vector with kVectors times kLanes keys, sums in order of the channels. load(v, c): channel c of the v-th
// keys. store(v, cosines).
template <int kVectors, typename Load, typename Store>
HWY_INLINE void CosinesOf(int head_dim, const float* vector, float length, const Load& load, const Store& store) {
  const D d;
  V product[kVectors], square[kVectors];
  for (int v = 0; v < kVectors; ++v) product[v] = square[v] = hn::Zero(d);
  for (int c = 0; c < head_dim; ++c) {
    const V of_channel = hn::Set(d, vector[c]);
    for (int v = 0; v < kVectors; ++v) {
      const V key = load(v, c);
      product[v] = hn::MulAdd(of_channel, key, product[v]);
      square[v] = hn::MulAdd(key, key, square[v]);
    }
  }
  for (int v = 0; v < kVectors; ++v) store(v, Cosine(product[v], length, square[v]));
}

// Sixteen codes of kBits, the first in the lowest bits, as numbers: those from `part`, one for each lane.
template <int kBits>
HWY_INLINE V LoadCodes(const uint8_t* codes, int part) {
  const D d;
  const hn::RebindToSigned<D> di;
  if constexpr (kBits == 8) {
    const hn::Rebind<int8_t, D> d8;
    return hn::ConvertTo(d, hn::PromoteTo(di, hn::LoadU(d8, reinterpret_cast<const int8_t*>(codes) + part)));
  } else {
    const hn::RebindToUnsigned<D> du;
    constexpr int kPerWord = 32 / kBits;
    uint32_t words[kBits / 2];
    __builtin_memcpy(words, codes, sizeof words);
    auto word = hn::Set(du, words[part / kPerWord]);
    if constexpr (kBits == 4) {
      if (hn::Lanes(d) == kSlots) word = hn::IfThenElse(hn::FirstN(du, kPerWord), word, hn::Set(du, words[1]));
    }
    const auto index = hn::And(hn::BitCast(du, LanesFrom(di, part)), hn::Set(du, uint32_t{kPerWord - 1}));
    const auto shift = hn::ShiftLeft < kBits == 2 ? 1 : 2 > (index);
    return hn::ConvertTo(d, hn::BitCast(di, hn::And(hn::Shr(word, shift), hn::Set(du, (1u << kBits) - 1))));
  }
}

// count halves, a multiple of 4 or followed by others that may be read.
HWY_INLINE void LoadHalves(const uint8_t* from, int count, float* to) {
  const hn::CappedTag<float, 4> d4;
  const hn::Rebind<hwy::float16_t, decltype(d4)> d16;
  const int lanes = static_cast<int>(hn::Lanes(d4));
  const auto* halves = reinterpret_cast<const hwy::float16_t*>(from);
  for (int i = 0; i < count; i += lanes) hn::StoreU(hn::PromoteTo(d4, hn::LoadU(d16, halves + i)), d4, to + i);
}

// Keys of a half of a packed page as [head_dim][16].
template <int kBits>
HWY_INLINE void UnpackKeys(const AttentionTask& task, const uint8_t* page, int half, float* HWY_RESTRICT keys) {
  const D d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const PackedPage& layout = *task.packed_layout;
  constexpr int kCodeBytes = 2 * kBits;
  const uint8_t* codes = page + layout.key_codes + static_cast<int64_t>(half) * task.head_dim * kCodeBytes;
  HWY_ALIGN float scale[kMaxHeadDim], minimum[kMaxHeadDim];
  if constexpr (kBits == 8) {
    LoadHalves(page + half * kSlots * 2, kSlots, scale);
  } else {
    LoadHalves(page, task.head_dim, scale);
    LoadHalves(page + layout.key_minimums, task.head_dim, minimum);
  }
  for (int c = 0; c < task.head_dim; ++c) {
    for (int part = 0; part < kSlots; part += lanes) {
      const V code = LoadCodes<kBits>(codes + c * kCodeBytes, part);
      const V key = kBits == 8 ? hn::Mul(code, hn::Load(d, scale + part))
                               : hn::MulAdd(code, hn::Set(d, scale[c]), hn::Set(d, minimum[c]));
      hn::Store(key, d, keys + c * kSlots + part);
    }
  }
}

// The values of a packed row.
template <int kBits>
class PackedValues {
 public:
  PackedValues(const AttentionTask& task, const uint8_t* page, int row) {
    const PackedPage& layout = *task.packed_layout;
    codes_ = page + layout.value_codes + static_cast<int64_t>(row) * (task.head_dim / 16) * kCodeBytes;
    group_shift_ = layout.value_group == 32 ? 5 : 4;
    const int64_t ranges = int64_t{row} * layout.value_groups * 2;
    LoadHalves(page + layout.value_scales + ranges, layout.value_groups, scale_);
    if constexpr (kBits != 8) LoadHalves(page + layout.value_minimums + ranges, layout.value_groups, minimum_);
  }
  // Of the channels from `channel`, one for each lane.
  HWY_INLINE V Load(int channel) const {
    const D d;
    const V code = LoadCodes<kBits>(codes_ + channel / 16 * kCodeBytes, channel % 16);
    if constexpr (kBits == 8) return hn::Mul(code, hn::Set(d, scale_[0]));
    const int group = channel >> group_shift_;
    return hn::MulAdd(code, hn::Set(d, scale_[group]), hn::Set(d, minimum_[group]));
  }

 private:
  static constexpr int kCodeBytes = 2 * kBits;
  const uint8_t* codes_;
  int group_shift_;
  float scale_[kMaxHeadDim / 16 + 3], minimum_[kMaxHeadDim / 16 + 3];
};

}  // namespace
}  // namespace tidepool::TIDEPOOL_ISA

#endif  // TIDEPOOL_WORKER_KERNELS_CPU_ATTENTION_ELEMENTS_H_
