// Scores of int8 pages by the dot products of bytes that an instruction set may have. Included by attention_scores.h
// only, compiled with TIDEPOOL_ISA.
//
// A query is rounded to 16 bits, 32,512 steps to each side of zero: finer by far than its keys, and than float16. Sums
// of products are exact, so that they are the same for any number of queries at once.
#ifndef TIDEPOOL_WORKER_KERNELS_CPU_ATTENTION_INT8_H_
#define TIDEPOOL_WORKER_KERNELS_CPU_ATTENTION_INT8_H_

#include <cstdint>

#include "hwy/highway.h"
#include "worker/kernels/cpu/attention.h"
#include "worker/kernels/cpu/attention_elements.h"

#if defined(__AVX512VNNI__) && defined(__AVX512VBMI__)
#define TIDEPOOL_INT8_DOTS 1
#else
#define TIDEPOOL_INT8_DOTS 0
#endif

#if TIDEPOOL_INT8_DOTS

namespace tidepool::TIDEPOOL_ISA {
namespace {

constexpr int kRoundedQueries = 64;

struct RoundedQueries {
  // q = step * (256 * high + low).
  HWY_ALIGN int8_t high[kRoundedQueries][kMaxHeadDim];
  HWY_ALIGN int8_t low[kRoundedQueries][kMaxHeadDim];
  float step[kRoundedQueries];
  // Keys are multiplied as codes + 128: what sums begin with.
  int32_t high_start[kRoundedQueries], low_start[kRoundedQueries];
};

inline void RoundQueries(const AttentionTask& task, RoundedQueries& to) {
  constexpr float kSteps = 127 * 256, kLeast = 1e-30f;
  const D d;
  const hn::RebindToSigned<D> di;
  const hn::Rebind<int8_t, D> d8;
  for (int j = 0; j < task.queries; ++j) {
    const float* q = task.q[j];
    V most = hn::Zero(d), nothing = hn::Zero(d);
    for (int c = 0; c < task.head_dim; c += kLanes) {
      const V x = hn::LoadU(d, q + c);
      most = hn::Max(most, hn::Abs(x));
      nothing = hn::MulAdd(x, hn::Zero(d), nothing);  // NaN where x is no number, which scores must show
    }
    const float largest = hn::GetLane(hn::MaxOfLanes(d, most));
    const V inverse = hn::Set(d, largest > kLeast ? kSteps / largest : 0.0f);
    to.step[j] = largest / kSteps + hn::GetLane(hn::SumOfLanes(d, nothing));
    auto high_sum = hn::Zero(di), low_sum = hn::Zero(di);
    for (int c = 0; c < task.head_dim; c += kLanes) {
      const auto steps = hn::NearestInt(hn::Mul(hn::LoadU(d, q + c), inverse));
      const auto high = hn::ShiftRight<8>(hn::Add(steps, hn::Set(di, 128)));
      const auto low = hn::Sub(steps, hn::ShiftLeft<8>(high));
      high_sum = hn::Add(high_sum, high);
      low_sum = hn::Add(low_sum, low);
      hn::StoreU(hn::DemoteTo(d8, high), d8, to.high[j] + c);
      hn::StoreU(hn::DemoteTo(d8, low), d8, to.low[j] + c);
    }
    to.high_start[j] = -128 * hn::GetLane(hn::SumOfLanes(di, high_sum));
    to.low_start[j] = -128 * hn::GetLane(hn::SumOfLanes(di, low_sum));
  }
}

// Of kTile queries from the first on, for halves of int8 pages: a vector holds a half's slots. ahead: what is
// asked for meanwhile.
template <int kTile, int kHalves>
HWY_INLINE void Int8Scores(const AttentionTask& task, const RoundedQueries& queries, int first,
                           const uint8_t* const* codes, const V* scale, const char* const* ahead, float* scores,
                           int64_t stride) {
  // Sixteen codes of each of four channels become four of each slot.
  alignas(64) static constexpr uint8_t kBySlot[64] = {0,  16, 32, 48, 1,  17, 33, 49, 2,  18, 34, 50, 3,  19, 35, 51,
                                                      4,  20, 36, 52, 5,  21, 37, 53, 6,  22, 38, 54, 7,  23, 39, 55,
                                                      8,  24, 40, 56, 9,  25, 41, 57, 10, 26, 42, 58, 11, 27, 43, 59,
                                                      12, 28, 44, 60, 13, 29, 45, 61, 14, 30, 46, 62, 15, 31, 47, 63};
  const __m512i by_slot = _mm512_load_si512(kBySlot), top_bits = _mm512_set1_epi8(-128);
  __m512i high[kTile][kHalves], low[kTile][kHalves];
  for (int j = 0; j < kTile; ++j) {
    for (int v = 0; v < kHalves; ++v) {
      high[j][v] = _mm512_set1_epi32(queries.high_start[first + j]);
      low[j][v] = _mm512_set1_epi32(queries.low_start[first + j]);
    }
  }
  auto four = [](const int8_t* from) {
    int32_t bytes;
    __builtin_memcpy(&bytes, from, sizeof bytes);
    return _mm512_set1_epi32(bytes);
  };
  for (int c = 0; c < task.head_dim; c += 4) {
    __m512i keys[kHalves];
    for (int v = 0; v < kHalves; ++v) {
      AskForLine(ahead[v] + c * kSlots);
      const __m512i by_channel = _mm512_loadu_si512(codes[v] + c * kSlots);
      keys[v] = _mm512_xor_si512(_mm512_permutexvar_epi8(by_slot, by_channel), top_bits);
    }
    for (int j = 0; j < kTile; ++j) {
      const __m512i query_high = four(queries.high[first + j] + c), query_low = four(queries.low[first + j] + c);
      for (int v = 0; v < kHalves; ++v) {
        high[j][v] = _mm512_dpbusd_epi32(high[j][v], keys[v], query_high);
        low[j][v] = _mm512_dpbusd_epi32(low[j][v], keys[v], query_low);
      }
    }
  }
  const D d;
  const hn::RebindToSigned<D> di;
  for (int j = 0; j < kTile; ++j) {
    const V step = hn::Set(d, queries.step[first + j] * task.scale);
    for (int v = 0; v < kHalves; ++v) {
      const hn::Vec<decltype(di)> sum{_mm512_add_epi32(_mm512_slli_epi32(high[j][v], 8), low[j][v])};
      hn::StoreU(hn::Mul(hn::ConvertTo(d, sum), hn::Mul(scale[v], step)), d, scores + j * stride + v * kSlots);
    }
  }
}

template <int kHalves>
HWY_INLINE void Int8PageScores(const AttentionTask& task, const RoundedQueries& queries, const void* const* pages,
                               const uint8_t* halves, const char* const* ahead, float* scores, int64_t stride) {
  const D d;
  const uint8_t* codes[kHalves];
  V scale[kHalves];
  for (int v = 0; v < kHalves; ++v) {
    const auto* page = static_cast<const uint8_t*>(pages[v]);
    const int half = halves[v] - 1;
    codes[v] = page + task.packed_layout->key_codes + int64_t{half} * task.head_dim * kSlots;
    scale[v] = LoadElements(d, reinterpret_cast<const hwy::float16_t*>(page) + half * kSlots);
  }
  constexpr int kTile = 4;
  for (int j = 0; j < task.queries; j += kTile) {
    float* to = scores + j * stride;
    switch (task.queries - j) {
      case 1: Int8Scores<1, kHalves>(task, queries, j, codes, scale, ahead, to, stride); break;
      case 2: Int8Scores<2, kHalves>(task, queries, j, codes, scale, ahead, to, stride); break;
      case 3: Int8Scores<3, kHalves>(task, queries, j, codes, scale, ahead, to, stride); break;
      default: Int8Scores<4, kHalves>(task, queries, j, codes, scale, ahead, to, stride); break;
    }
  }
}

}  // namespace
}  // namespace tidepool::TIDEPOOL_ISA

#endif  // TIDEPOOL_INT8_DOTS

#endif  // TIDEPOOL_WORKER_KERNELS_CPU_ATTENTION_INT8_H_
