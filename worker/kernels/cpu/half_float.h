// Conversion between float32 and IEEE half precision, of one instruction set. Included by kernel sources only, each
// compiled with TIDEPOOL_ISA.
#ifndef TIDEPOOL_WORKER_KERNELS_CPU_HALF_FLOAT_H_
#define TIDEPOOL_WORKER_KERNELS_CPU_HALF_FLOAT_H_

#include <cstdint>

#include "hwy/highway.h"

namespace tidepool::TIDEPOOL_ISA {
namespace {

namespace half {
namespace hn = hwy::HWY_NAMESPACE;
constexpr int kLanes = 16;
using D = hn::CappedTag<float, kLanes>;

#if !defined(__F16C__)
// Round to nearest even in integer arithmetic: Highway's emulation of the conversion on SSE4 does not round so.
uint16_t BitsOf(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, 4);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude >= 0x7f800000u) return static_cast<uint16_t>(sign | 0x7c00u | (magnitude > 0x7f800000u ? 0x200u : 0u));
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // rounds to infinity
  if (magnitude < 0x38800000u) {                                               // subnormal half: multiples of 2^-24
    const float scaled = __builtin_fabsf(value) * 16777216.0f;                 // exact
    const float rounded = (scaled + 8388608.0f) - 8388608.0f;
    return static_cast<uint16_t>(sign | static_cast<uint32_t>(rounded));
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}
#endif

void FromFloat(const float* in, int64_t count, uint16_t* out) {
#if defined(__F16C__)
  const D d;
  const hn::Rebind<hwy::float16_t, D> d16;
  const int lanes = static_cast<int>(hn::Lanes(d));
  hwy::float16_t* to = reinterpret_cast<hwy::float16_t*>(out);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) hn::StoreU(hn::DemoteTo(d16, hn::LoadU(d, in + i)), d16, to + i);
  if (i < count) {
    HWY_ALIGN float rest[kLanes] = {};
    HWY_ALIGN hwy::float16_t halves[kLanes];
    __builtin_memcpy(rest, in + i, (count - i) * sizeof(float));
    hn::StoreU(hn::DemoteTo(d16, hn::Load(d, rest)), d16, halves);
    __builtin_memcpy(out + i, halves, (count - i) * sizeof(uint16_t));
  }
#else
  for (int64_t i = 0; i < count; ++i) out[i] = BitsOf(in[i]);
#endif
}

void ToFloat(const uint16_t* in, int64_t count, float* out) {
  const D d;
  const hn::Rebind<hwy::float16_t, D> d16;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const hwy::float16_t* from = reinterpret_cast<const hwy::float16_t*>(in);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) hn::StoreU(hn::PromoteTo(d, hn::LoadU(d16, from + i)), d, out + i);
  if (i < count) {
    HWY_ALIGN uint16_t rest[kLanes] = {};
    HWY_ALIGN float values[kLanes];
    __builtin_memcpy(rest, in + i, (count - i) * sizeof(uint16_t));
    hn::Store(hn::PromoteTo(d, hn::LoadU(d16, reinterpret_cast<const hwy::float16_t*>(rest))), d, values);
    __builtin_memcpy(out + i, values, (count - i) * sizeof(float));
  }
}

}  // namespace half

}  // namespace
}  // namespace tidepool::TIDEPOOL_ISA

#endif  // TIDEPOOL_WORKER_KERNELS_CPU_HALF_FLOAT_H_
