// The int8 dot product of one instruction set. Included by kernel sources only, each compiled with TIDEPOOL_ISA.
#ifndef TIDEPOOL_WORKER_KERNELS_CPU_MATMUL_DOT_H_
#define TIDEPOOL_WORKER_KERNELS_CPU_MATMUL_DOT_H_

#include <cstdint>
#include <cstring>

#include "hwy/highway.h"
#include "worker/kernels/cpu/packed_format.h"

namespace tidepool::TIDEPOOL_ISA {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using DF32 = hn::CappedTag<float, 16>;
using DI32 = hn::RebindToSigned<DF32>;
using DU8 = hn::Repartition<uint8_t, DI32>;
using F32 = hn::Vec<DF32>;
using I32 = hn::Vec<DI32>;
using U8 = hn::Vec<DU8>;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(DF32()));

HWY_INLINE I32 BroadcastInputs(const int8_t* inputs) {
  int32_t four;
  std::memcpy(&four, inputs, sizeof four);
  return hn::Set(DI32(), four);
}

// kOffset is a power of two or zero.
template <int kOffset>
HWY_INLINE I32 TimesOffset(int32_t negative_sum) {
  if constexpr (kOffset == 0) {
    return hn::Zero(DI32());
  } else {
    return hn::ShiftLeft<__builtin_ctz(kOffset)>(hn::Set(DI32(), negative_sum));
  }
}

// Lane by lane, exactly: sum over kGroups groups of 4 inputs of (w - kOffset) * input, with 0 <= w <= kMaximum and
// |input| <= 127. negative_sum = - sum of the inputs. Groups of inputs are kStride bytes apart.
#if defined(__AVX512VNNI__)

// Of kColumns rows of inputs side by side: group by group, as each row's sum waits for the one before it.
template <int kMaximum, int kOffset, int kGroups, int kStride, int kColumns, typename Sum>
HWY_INLINE void DotColumns(const U8* HWY_RESTRICT w, const int8_t* inputs, const Sum* negative_sums, I32* dots) {
  HWY_UNROLL(8)
  for (int c = 0; c < kColumns; ++c) dots[c] = TimesOffset<kOffset>(negative_sums[c]);
  HWY_UNROLL(8)
  for (int g = 0; g < kGroups; ++g) {
    HWY_UNROLL(8)
    for (int c = 0; c < kColumns; ++c) {
      dots[c].raw = _mm512_dpbusd_epi32(dots[c].raw, w[g].raw, BroadcastInputs(inputs + g * kStride + 4 * c).raw);
    }
  }
}

#else

#if defined(__SSSE3__)

// The additions in place are spelt out: GCC 12 would move sums from register to register, and read ahead what there are
// no registers for.
#if defined(__AVX2__)
using Raw = __m256i;
HWY_INLINE Raw PairProducts(Raw w, Raw x) { return _mm256_maddubs_epi16(w, x); }
HWY_INLINE Raw Ones16() { return _mm256_set1_epi16(1); }
HWY_INLINE Raw AddPairs(Raw sums) { return _mm256_madd_epi16(sums, Ones16()); }
HWY_INLINE Raw Add16(Raw a, Raw b) { return _mm256_add_epi16(a, b); }
HWY_INLINE Raw Add32(Raw a, Raw b) { return _mm256_add_epi32(a, b); }
HWY_INLINE Raw Magnitude(Raw a) { return _mm256_abs_epi8(a); }
HWY_INLINE Raw WithSignOf(Raw x, Raw sign) { return _mm256_sign_epi8(x, sign); }
HWY_INLINE Raw FlipTopBits(Raw a) { return _mm256_xor_si256(a, _mm256_set1_epi8(-128)); }
HWY_INLINE void AddTo16(Raw& sum, Raw x) { asm volatile("vpaddw %1, %0, %0" : "+x"(sum) : "x"(x)); }
HWY_INLINE void AddTo32(Raw& sum, Raw x) { asm volatile("vpaddd %1, %0, %0" : "+x"(sum) : "x"(x)); }
HWY_INLINE void AddPairsOf(Raw& sums, Raw ones) { asm volatile("vpmaddwd %1, %0, %0" : "+x"(sums) : "x"(ones)); }
#else
using Raw = __m128i;
HWY_INLINE Raw PairProducts(Raw w, Raw x) { return _mm_maddubs_epi16(w, x); }
HWY_INLINE Raw Ones16() { return _mm_set1_epi16(1); }
HWY_INLINE Raw AddPairs(Raw sums) { return _mm_madd_epi16(sums, Ones16()); }
HWY_INLINE Raw Add16(Raw a, Raw b) { return _mm_add_epi16(a, b); }
HWY_INLINE Raw Add32(Raw a, Raw b) { return _mm_add_epi32(a, b); }
HWY_INLINE Raw Magnitude(Raw a) { return _mm_abs_epi8(a); }
HWY_INLINE Raw WithSignOf(Raw x, Raw sign) { return _mm_sign_epi8(x, sign); }
HWY_INLINE Raw FlipTopBits(Raw a) { return _mm_xor_si128(a, _mm_set1_epi8(-128)); }
HWY_INLINE void AddTo16(Raw& sum, Raw x) { asm volatile("paddw %1, %0" : "+x"(sum) : "x"(x)); }
HWY_INLINE void AddTo32(Raw& sum, Raw x) { asm volatile("paddd %1, %0" : "+x"(sum) : "x"(x)); }
HWY_INLINE void AddPairsOf(Raw& sums, Raw ones) { asm volatile("pmaddwd %1, %0" : "+x"(sums) : "x"(ones)); }
#endif

// Sums of two products are formed in 16 bits with saturation, so as many are added there as stay below 2^15.
template <int kMaximum, int kGroups>
constexpr int RunOf() {
  constexpr int kFit = 32767 / (2 * kMaximum * 127);
  constexpr int kRun = kFit < kGroups ? kFit : kGroups;
  static_assert(kRun >= 1 && kGroups % kRun == 0);
  return kRun;
}

template <int kMaximum, int kOffset, int kGroups, int kStride>
HWY_INLINE I32 DotGroups(const U8* HWY_RESTRICT w, const int8_t* inputs, int32_t negative_sum) {
  if constexpr (kMaximum > 127) {
    static_assert(kOffset == 128);  // w - 128 is w with the top bit flipped, read as signed; |w - 128| <= 128
    Raw sum = hn::Zero(DI32()).raw;
    for (int g = 0; g < kGroups; ++g) {
      const Raw value = FlipTopBits(w[g].raw);
      const Raw signed_inputs = WithSignOf(BroadcastInputs(inputs + g * kStride).raw, value);
      sum = Add32(sum, AddPairs(PairProducts(Magnitude(value), signed_inputs)));
    }
    return I32{sum};
  } else {
    constexpr int kRun = RunOf<kMaximum, kGroups>();
    Raw sum = TimesOffset<kOffset>(negative_sum).raw;
    for (int first = 0; first < kGroups; first += kRun) {
      Raw pairs = PairProducts(w[first].raw, BroadcastInputs(inputs + first * kStride).raw);
      for (int g = first + 1; g < first + kRun; ++g) {
        pairs = Add16(pairs, PairProducts(w[g].raw, BroadcastInputs(inputs + g * kStride).raw));
      }
      sum = Add32(sum, AddPairs(pairs));
    }
    return I32{sum};
  }
}

// 16-bit sums of pairs of products of kRun groups: of kColumns rows of inputs, for two vectors of outputs, which share
// every broadcast.
template <int kRun, int kStride, int kColumns>
HWY_INLINE void PairsOfRun(const uint8_t* HWY_RESTRICT w, const int8_t* inputs, Raw (&pairs)[kColumns][2]) {
  HWY_UNROLL(8)
  for (int g = 0; g < kRun; ++g) {
    Raw value[2];
    for (int v = 0; v < 2; ++v) value[v] = hn::Load(DU8(), w + g * kTileRows * 4 + v * kLanes * 4).raw;
    HWY_UNROLL(8)
    for (int c = 0; c < kColumns; ++c) {
      const Raw x = BroadcastInputs(inputs + g * kStride + 4 * c).raw;
      for (int v = 0; v < 2; ++v) {
        const Raw products = PairProducts(value[v], x);
        if (g == 0) {
          pairs[c][v] = products;
        } else {
          AddTo16(pairs[c][v], products);
        }
      }
    }
  }
}

// DotGroups of kColumns rows of inputs for two vectors of outputs, which share every broadcast: take(column, vector,
// dot). w: [group][kTileRows][4], from the first of them.
template <int kMaximum, int kOffset, int kGroups, int kStride, int kColumns, typename Sum, typename Take>
HWY_INLINE void DotTwoVectors(const uint8_t* HWY_RESTRICT w, const int8_t* inputs, const Sum* negative_sums,
                              const Take& take) {
  const DU8 d;
  if constexpr (kMaximum > 127) {
    static_assert(kOffset == 128);
    Raw sum[kColumns][2];
    HWY_UNROLL(8)
    for (int g = 0; g < kGroups; ++g) {
      Raw value[2], magnitude[2];
      for (int v = 0; v < 2; ++v) {
        value[v] = FlipTopBits(hn::Load(d, w + g * kTileRows * 4 + v * kLanes * 4).raw);
        magnitude[v] = Magnitude(value[v]);
      }
      HWY_UNROLL(8)
      for (int c = 0; c < kColumns; ++c) {
        const Raw x = BroadcastInputs(inputs + g * kStride + 4 * c).raw;
        for (int v = 0; v < 2; ++v) {
          const Raw products = AddPairs(PairProducts(magnitude[v], WithSignOf(x, value[v])));
          if (g == 0) {
            sum[c][v] = products;
          } else {
            AddTo32(sum[c][v], products);
          }
        }
      }
    }
    HWY_UNROLL(8)
    for (int c = 0; c < kColumns; ++c) {
      for (int v = 0; v < 2; ++v) take(c, v, I32{sum[c][v]});
    }
  } else {
    constexpr int kRun = RunOf<kMaximum, kGroups>();
    const Raw ones = Ones16();
    Raw pairs[kColumns][2];
    if constexpr (kRun == kGroups) {
      PairsOfRun<kRun, kStride, kColumns>(w, inputs, pairs);
      HWY_UNROLL(8)
      for (int c = 0; c < kColumns; ++c) {
        const Raw offset = TimesOffset<kOffset>(negative_sums[c]).raw;
        for (int v = 0; v < 2; ++v) {
          AddPairsOf(pairs[c][v], ones);
          take(c, v, I32{Add32(offset, pairs[c][v])});
        }
      }
    } else {
      Raw sum[kColumns][2];
      HWY_UNROLL(8)
      for (int first = 0; first < kGroups; first += kRun) {
        PairsOfRun<kRun, kStride, kColumns>(w + first * kTileRows * 4, inputs + first * kStride, pairs);
        HWY_UNROLL(8)
        for (int c = 0; c < kColumns; ++c) {
          for (int v = 0; v < 2; ++v) {
            AddPairsOf(pairs[c][v], ones);
            sum[c][v] = Add32(first == 0 ? TimesOffset<kOffset>(negative_sums[c]).raw : sum[c][v], pairs[c][v]);
          }
        }
      }
      HWY_UNROLL(8)
      for (int c = 0; c < kColumns; ++c) {
        for (int v = 0; v < 2; ++v) take(c, v, I32{sum[c][v]});
      }
    }
  }
}

#else

template <int kMaximum, int kOffset, int kGroups, int kStride>
HWY_INLINE I32 DotGroups(const U8* HWY_RESTRICT w, const int8_t* inputs, int32_t negative_sum) {
  HWY_ALIGN int32_t sums[kLanes];
  hn::Store(TimesOffset<kOffset>(negative_sum), DI32(), sums);
  for (int g = 0; g < kGroups; ++g) {
    HWY_ALIGN uint8_t values[kLanes * 4];
    hn::Store(w[g], DU8(), values);
    for (int i = 0; i < kLanes * 4; ++i) sums[i / 4] += values[i] * inputs[g * kStride + i % 4];
  }
  return hn::Load(DI32(), sums);
}

#endif

template <int kMaximum, int kOffset, int kGroups, int kStride, int kColumns, typename Sum>
HWY_INLINE void DotColumns(const U8* HWY_RESTRICT w, const int8_t* inputs, const Sum* negative_sums, I32* dots) {
  for (int c = 0; c < kColumns; ++c) {
    dots[c] = DotGroups<kMaximum, kOffset, kGroups, kStride>(w, inputs + 4 * c, negative_sums[c]);
  }
}

#endif

}  // namespace
}  // namespace tidepool::TIDEPOOL_ISA

#endif  // TIDEPOOL_WORKER_KERNELS_CPU_MATMUL_DOT_H_
