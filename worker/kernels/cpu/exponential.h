// Powers by a polynomial. Included by kernel sources only, each compiled with TIDEPOOL_ISA.
#ifndef TIDEPOOL_WORKER_KERNELS_CPU_EXPONENTIAL_H_
#define TIDEPOOL_WORKER_KERNELS_CPU_EXPONENTIAL_H_

#include "hwy/highway.h"

namespace tidepool::TIDEPOOL_ISA {
namespace {

inline constexpr float kLog2E = 1.44269504f;

// Adding it rounds to a whole number, which the lowest nine bits of the sum then are. hn::NearestInt minds what is out
// of range.
inline constexpr float kRounder = 0x1.8p23f;

// `mantissa`, from half to two, times 2 to the power that was rounded by kRounder.
template <class D, class V = hwy::HWY_NAMESPACE::Vec<D>>
HWY_INLINE V TimesPower(D d, V mantissa, V rounded) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::RebindToSigned<D> di;
  return hn::BitCast(d, hn::Add(hn::BitCast(di, mantissa), hn::ShiftLeft<23>(hn::BitCast(di, rounded))));
}

// 2^y for y in -120 to 127, to 4e-6 of it.
template <class D, class V = hwy::HWY_NAMESPACE::Vec<D>>
HWY_INLINE V TwoTo(D d, V y) {
  namespace hn = hwy::HWY_NAMESPACE;
  const V rounder = hn::Set(d, kRounder), rounded = hn::Add(y, rounder);
  const V f = hn::Sub(y, hn::Sub(rounded, rounder));
  V p = hn::MulAdd(hn::Set(d, 9.666368515e-3f), f, hn::Set(d, 5.592197584e-2f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.2402234904f));
  p = hn::MulAdd(p, f, hn::Set(d, 0.6931210452f));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0f));
  return TimesPower(d, p, rounded);
}

// e^x, to 2e-7 of it; of what is below -86 or above 88, e^-86 or e^88. e^0 is 1, not-a-number stays so. Half the
// operations of hn::Exp, which minds numbers with fewer bits.
template <class D, class V = hwy::HWY_NAMESPACE::Vec<D>>
HWY_INLINE V Exponential(D d, V x) {
  namespace hn = hwy::HWY_NAMESPACE;
  // x86 takes the second of two where one is not a number.
  x = hn::Min(hn::Set(d, 88.0f), hn::Max(hn::Set(d, -86.0f), x));
  const V rounder = hn::Set(d, kRounder), rounded = hn::MulAdd(x, hn::Set(d, kLog2E), rounder);
  const V whole = hn::Sub(rounded, rounder);
  // The logarithm of 2 in two parts: a whole number times the first is exact.
  const V r =
      hn::MulAdd(whole, hn::Set(d, -1.428606765330187045e-6f), hn::MulAdd(whole, hn::Set(d, -0.693145751953125f), x));
  V p = hn::MulAdd(hn::Set(d, 8.2903066650e-3f), r, hn::Set(d, 4.1897974908e-2f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.1666763723f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.4999915063f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.9999997020f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  return TimesPower(d, p, rounded);
}

}  // namespace
}  // namespace tidepool::TIDEPOOL_ISA

#endif  // TIDEPOOL_WORKER_KERNELS_CPU_EXPONENTIAL_H_
