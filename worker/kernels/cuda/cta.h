// What a kernel body is written in, so that the same source runs on a GPU and, thread by thread, on the host
// (emulator.h). A kernel is a struct
//
//   struct Scale {
//     struct Args { const float* x; float* out; int count; };  // plain data, passed by value
//     struct Shared { SharedArray<float, 8> partial; };        // a CTA's shared memory
//     static constexpr int kThreads = 256;                     // of a CTA, a multiple of 32
//     static constexpr int kCtasAtOnce = 2;                    // if there: registers are to suffice for them
//     template <class Cta> TP_KERNEL static void Run(Cta& cta, Shared& shared, const Args& args);
//   };
//
// Run is one thread. Warp operations are called by all 32 lanes of a warp at the same place, Sync by all threads of the
// CTA; the emulator ends the process where they are not.
#ifndef TIDEPOOL_WORKER_KERNELS_CUDA_CTA_H_
#define TIDEPOOL_WORKER_KERNELS_CUDA_CTA_H_

#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define TP_KERNEL __device__ __forceinline__
#else
#define TP_KERNEL inline
#endif

namespace tidepool::cuda {

// CTAs of a launch.
struct Grid {
  int x = 1, y = 1, z = 1;
};

constexpr int CeilDiv(int64_t a, int64_t b) { return static_cast<int>((a + b - 1) / b); }

struct alignas(16) Words4 {
  uint32_t w[4];
};

#ifdef __CUDACC__

template <class T, int kCount>
class SharedArray {
 public:
  __device__ __forceinline__ T& operator[](int i) { return values_[i]; }
  __device__ __forceinline__ uint32_t Address(int i) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(&values_[i]));
  }

 private:
  T values_[kCount];
};

class DeviceCta {
 public:
  __device__ __forceinline__ int thread() const { return threadIdx.x; }
  __device__ __forceinline__ int x() const { return blockIdx.x; }
  __device__ __forceinline__ int y() const { return blockIdx.y; }
  __device__ __forceinline__ int z() const { return blockIdx.z; }
  __device__ __forceinline__ Grid grid() const {
    return {static_cast<int>(gridDim.x), static_cast<int>(gridDim.y), static_cast<int>(gridDim.z)};
  }
  __device__ __forceinline__ void Sync() { __syncthreads(); }

  // array[to] = *from, or zeros, some time before a WaitForCopies of this thread that names its group; other threads
  // see it after a barrier. A group is what was copied up to EndCopies.
  template <int kCount>
  __device__ __forceinline__ void Copy(SharedArray<Words4, kCount>& array, int to, const void* from, bool exists) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(array.Address(to)), "l"(from),
                 "r"(exists ? 16 : 0)
                 : "memory");
  }
  __device__ __forceinline__ void EndCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
  // All groups but the last kLeft have arrived.
  template <int kLeft>
  __device__ __forceinline__ void WaitForCopies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
  }

  // values[i] becomes its sum, or maximum, over each aligned group of kLanes lanes (Group..), or over the
  // lanes of the warp that are equal modulo kLanes (Cross..).
  template <int kLanes, int kCount>
  __device__ __forceinline__ void GroupSum(float (&values)[kCount]) {
    Sum<kLanes / 2, 1>(values);
  }
  template <int kLanes, int kCount>
  __device__ __forceinline__ void GroupMax(float (&values)[kCount]) {
    Max<kLanes / 2, 1>(values);
  }
  template <int kLanes, int kCount>
  __device__ __forceinline__ void CrossSum(float (&values)[kCount]) {
    Sum<16, kLanes>(values);
  }
  template <int kLanes, int kCount>
  __device__ __forceinline__ void CrossMax(float (&values)[kCount]) {
    Max<16, kLanes>(values);
  }
  __device__ __forceinline__ float WarpSum(float value) {
    float values[1] = {value};
    GroupSum<32>(values);
    return values[0];
  }
  __device__ __forceinline__ float WarpMax(float value) {
    float values[1] = {value};
    Max<16, 1>(values);
    return values[0];
  }

  // True in all lanes where it is in one.
  __device__ __forceinline__ bool WarpAny(bool value) { return __any_sync(~0u, value) != 0; }
  // A bit for each lane where it is true.
  __device__ __forceinline__ uint32_t WarpBits(bool value) { return __ballot_sync(~0u, value); }

  // c += a b of 16 x 16 by 16 x 8 halves, over the warp. Lane 4 r + q holds, two halves to a word: a: rows r, r + 8, r,
  // r + 8 at k = 2 q (the first two) and 8 + 2 q; b: column r at k = 2 q and 8 + 2 q; c: row r, columns 2 q and 2 q +
  // 1, then row r + 8.
  __device__ __forceinline__ void MultiplyHalves(const uint32_t (&a)[4], const uint32_t (&b)[2], float (&c)[4]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }

 private:
  template <int kFirst, int kLast, int kCount>
  __device__ __forceinline__ void Sum(float (&values)[kCount]) {
#pragma unroll
    for (int mask = kFirst; mask >= kLast; mask /= 2) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) values[i] += __shfl_xor_sync(~0u, values[i], mask);
    }
  }
  template <int kFirst, int kLast, int kCount>
  __device__ __forceinline__ void Max(float (&values)[kCount]) {
#pragma unroll
    for (int mask = kFirst; mask >= kLast; mask /= 2) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) values[i] = fmaxf(values[i], __shfl_xor_sync(~0u, values[i], mask));
    }
  }
};

__device__ __forceinline__ int DotBytes(uint32_t a, uint32_t b, int sum) {
  return __dp4a(static_cast<int>(a), static_cast<int>(b), sum);
}
__device__ __forceinline__ float HalfToFloat(uint16_t half) { return __half2float(__ushort_as_half(half)); }
__device__ __forceinline__ uint16_t FloatToHalf(float x) { return __half_as_ushort(__float2half_rn(x)); }
// Two halves of a word, the low one first.
__device__ __forceinline__ void HalvesToFloats(uint32_t word, float* out) {
  const float2 both = __half22float2(*reinterpret_cast<const __half2*>(&word));
  out[0] = both.x;
  out[1] = both.y;
}
// Of both halves of the words.
__device__ __forceinline__ uint32_t HalvesMinus(uint32_t a, uint32_t b) {
  const __half2 out = __hsub2(*reinterpret_cast<const __half2*>(&a), *reinterpret_cast<const __half2*>(&b));
  return *reinterpret_cast<const uint32_t*>(&out);
}
__device__ __forceinline__ uint32_t HalvesTimesPlus(uint32_t a, uint32_t b, uint32_t c) {
  const __half2 out = __hfma2(*reinterpret_cast<const __half2*>(&a), *reinterpret_cast<const __half2*>(&b),
                              *reinterpret_cast<const __half2*>(&c));
  return *reinterpret_cast<const uint32_t*>(&out);
}
__device__ __forceinline__ float Exp2(float x) { return exp2f(x); }
__device__ __forceinline__ uint32_t StreamWord(const void* from) { return __ldcs(static_cast<const uint32_t*>(from)); }
__device__ __forceinline__ uint32_t LoadWord(const void* from) { return *static_cast<const uint32_t*>(from); }
__device__ __forceinline__ Words4 LoadWords(const void* from) {
  const uint4 v = *static_cast<const uint4*>(from);
  return {{v.x, v.y, v.z, v.w}};
}
__device__ __forceinline__ void StoreWords(void* to, const Words4& words) {
  *static_cast<uint4*>(to) = make_uint4(words.w[0], words.w[1], words.w[2], words.w[3]);
}
// Read once: not kept in the first-level cache.
__device__ __forceinline__ Words4 StreamWords(const void* from) {
  const uint4 v = __ldcs(static_cast<const uint4*>(from));
  return {{v.x, v.y, v.z, v.w}};
}

#else

// Exact in both directions, round to nearest even, as the instructions do.
inline float HalfToFloat(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t exponent = (half >> 10) & 0x1f, mantissa = half & 0x3ff;
  uint32_t bits;
  if (exponent == 0x1f) {
    bits = sign | 0x7f800000u | (mantissa << 13);
  } else if (exponent != 0) {
    bits = sign | ((exponent + 112) << 23) | (mantissa << 13);
  } else {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    std::memcpy(&bits, &magnitude, sizeof bits);
    bits |= sign;
  }
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
inline uint16_t FloatToHalf(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00);
  if (magnitude >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);  // rounds to infinity
  if (magnitude < 0x38800000) {                                              // subnormal: a multiple of 2^-24
    float value;
    std::memcpy(&value, &magnitude, sizeof value);
    return static_cast<uint16_t>(sign | static_cast<uint16_t>(std::nearbyint(value * 0x1p24f)));
  }
  const uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
  return static_cast<uint16_t>(sign | ((rounded >> 13) - (112 << 10)));
}
inline int DotBytes(uint32_t a, uint32_t b, int sum) {
  for (int i = 0; i < 4; ++i) {
    sum += static_cast<int>(static_cast<int8_t>(a >> (8 * i))) * static_cast<int>(static_cast<int8_t>(b >> (8 * i)));
  }
  return sum;
}
inline void HalvesToFloats(uint32_t word, float* out) {
  out[0] = HalfToFloat(static_cast<uint16_t>(word));
  out[1] = HalfToFloat(static_cast<uint16_t>(word >> 16));
}
template <class Of>
inline uint32_t ForHalves(const Of& of) {
  return FloatToHalf(of(0)) | static_cast<uint32_t>(FloatToHalf(of(16))) << 16;
}
inline uint32_t HalvesMinus(uint32_t a, uint32_t b) {
  return ForHalves([=](int shift) {
    return HalfToFloat(static_cast<uint16_t>(a >> shift)) - HalfToFloat(static_cast<uint16_t>(b >> shift));
  });
}
inline uint32_t HalvesTimesPlus(uint32_t a, uint32_t b, uint32_t c) {
  return ForHalves([=](int shift) {
    return static_cast<float>(double{HalfToFloat(static_cast<uint16_t>(a >> shift))} *
                                  HalfToFloat(static_cast<uint16_t>(b >> shift)) +
                              HalfToFloat(static_cast<uint16_t>(c >> shift)));
  });
}
inline float Exp2(float x) { return std::exp2(x); }
inline Words4 LoadWords(const void* from) {
  Words4 words;
  std::memcpy(&words, from, sizeof words);
  return words;
}
inline Words4 StreamWords(const void* from) { return LoadWords(from); }
inline uint32_t LoadWord(const void* from) {
  uint32_t word;
  std::memcpy(&word, from, sizeof word);
  return word;
}
inline uint32_t StreamWord(const void* from) { return LoadWord(from); }
inline void StoreWords(void* to, const Words4& words) { std::memcpy(to, &words, sizeof words); }

#endif

TP_KERNEL float BrainToFloat(uint16_t brain) {
  const uint32_t bits = static_cast<uint32_t>(brain) << 16;
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}
// Which bit it is, of a word that is not 0; how many bits are set.
#ifdef __CUDACC__
TP_KERNEL int LowestBit(uint32_t word) { return __ffs(static_cast<int>(word)) - 1; }
TP_KERNEL int CountBits(uint32_t word) { return __popc(word); }
#else
TP_KERNEL int LowestBit(uint32_t word) { return __builtin_ctz(word); }
TP_KERNEL int CountBits(uint32_t word) { return __builtin_popcount(word); }
#endif
// a * b + c, rounded twice.
#ifdef __CUDACC__
TP_KERNEL double TimesPlus(double a, double b, double c) { return __dadd_rn(__dmul_rn(a, b), c); }
#else
TP_KERNEL double TimesPlus(double a, double b, double c) {
  const volatile double product = a * b;  // not fused
  return product + c;
}
#endif
// The low halves of two words, the high halves; two numbers as halves.
#ifdef __CUDACC__
TP_KERNEL uint32_t LowHalves(uint32_t a, uint32_t b) { return __byte_perm(a, b, 0x5410); }
TP_KERNEL uint32_t HighHalves(uint32_t a, uint32_t b) { return __byte_perm(a, b, 0x7632); }
#else
TP_KERNEL uint32_t LowHalves(uint32_t a, uint32_t b) { return (a & 0xffff) | b << 16; }
TP_KERNEL uint32_t HighHalves(uint32_t a, uint32_t b) { return a >> 16 | (b & 0xffff0000u); }
#endif
TP_KERNEL uint32_t ToHalves(float low, float high) {
  return FloatToHalf(low) | static_cast<uint32_t>(FloatToHalf(high)) << 16;
}
// A NaN stays one.
TP_KERNEL float ClampedToHalfRange(float x) { return x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x; }

}  // namespace tidepool::cuda

#ifndef __CUDACC__
#include "worker/kernels/cuda/shared_array.h"
#endif

#endif  // TIDEPOOL_WORKER_KERNELS_CUDA_CTA_H_
