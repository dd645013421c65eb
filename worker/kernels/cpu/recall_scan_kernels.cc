// Compiled once for each instruction set: see worker/kernels/CMakeLists.txt.
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "worker/kernels/cpu/recall_scan.h"

namespace tidepool::TIDEPOOL_ISA {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

constexpr int kSlots = 16;
constexpr int kMaxHeadDim = 256;
constexpr int kQueryTile = 4;  // queries that share one load of a code
using D = hn::CappedTag<float, kSlots>;
using V = hn::Vec<D>;

// Sixteen partial sums by index modulo 16 on every instruction set, added up in one order.
float SumOf16(const float* partial) {
  float s[8];
  for (int i = 0; i < 8; ++i) s[i] = partial[i] + partial[i + 8];
  for (int i = 0; i < 4; ++i) s[i] += s[i + 4];
  return (s[0] + s[2]) + (s[1] + s[3]);
}

void SharesOfImpl(const float* x, const float* which, int32_t count, float scale, float* shares, float* sums) {
  const D d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const V factor = hn::Set(d, scale), lowest = hn::Set(d, -hwy::HighestValue<float>()), zero = hn::Zero(d);
  HWY_ALIGN float tail_x[kSlots] = {}, tail_which[kSlots] = {}, tail_shares[kSlots];
  const int32_t whole = count / kSlots * kSlots;
  for (int k = 0; k < count - whole; ++k) {
    tail_x[k] = x[whole + k];
    tail_which[k] = which[whole + k];
  }
  V most = lowest;
  auto raise = [&](const float* values, const float* chosen) {
    const V value = hn::Mul(hn::LoadU(d, values), factor);
    most = hn::Max(most, hn::IfThenElse(hn::Gt(hn::LoadU(d, chosen), zero), value, lowest));
  };
  for (int32_t i = 0; i < whole; i += lanes) raise(x + i, which + i);
  for (int part = 0; part < kSlots; part += lanes) raise(tail_x + part, tail_which + part);
  const V maximum = hn::MaxOfLanes(d, most), cap = hn::Set(d, 60.0f);

  HWY_ALIGN float chosen_sum[kSlots] = {}, all_sum[kSlots] = {};
  auto add = [&](const float* values, const float* chosen, float* out, int part) {
    const V e = hn::Exp(d, hn::Min(hn::Sub(hn::Mul(hn::LoadU(d, values), factor), maximum), cap));
    const V share = hn::Mul(e, hn::LoadU(d, chosen));
    hn::StoreU(share, d, out);
    hn::Store(hn::Add(hn::Load(d, chosen_sum + part), share), d, chosen_sum + part);
    return e;
  };
  const V floor = hn::Set(d, hn::GetLane(maximum) - 16.0f);
  for (int32_t i = 0; i < whole; i += kSlots) {
    V highest = hn::Mul(hn::LoadU(d, x + i), factor);
    for (int part = lanes; part < kSlots; part += lanes) {
      highest = hn::Max(highest, hn::Mul(hn::LoadU(d, x + i + part), factor));
    }
    if (hn::AllTrue(d, hn::Lt(highest, floor))) {  // most, where a head knows what it wants
      for (int part = 0; part < kSlots; part += lanes) hn::StoreU(zero, d, shares + i + part);
      continue;
    }
    for (int part = 0; part < kSlots; part += lanes) {
      const V e = add(x + i + part, which + i + part, shares + i + part, part);
      hn::Store(hn::Add(hn::Load(d, all_sum + part), e), d, all_sum + part);
    }
  }
  HWY_ALIGN float tail_e[kSlots];
  for (int part = 0; part < kSlots; part += lanes) {
    hn::Store(add(tail_x + part, tail_which + part, tail_shares + part, part), d, tail_e + part);
  }
  for (int k = 0; k < count - whole; ++k) {
    shares[whole + k] = tail_shares[k];
    all_sum[k] += tail_e[k];
  }
  sums[0] = SumOf16(chosen_sum);
  sums[1] = SumOf16(all_sum);
}

int32_t WeighSharesImpl(const float* const* shares, const float* factor, int32_t queries, int32_t count, float least,
                        float* weight, int32_t* above) {
  const D d;
  const hn::RebindToSigned<D> di;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const V limit = hn::Set(d, least);
  int32_t found = 0, i = 0;
  for (; i + lanes <= count; i += lanes) {
    V sum = hn::Zero(d);
    for (int j = 0; j < queries; ++j) sum = hn::Add(sum, hn::Mul(hn::Set(d, factor[j]), hn::LoadU(d, shares[j] + i)));
    hn::StoreU(sum, d, weight + i);
    const auto is_above = hn::Gt(sum, limit);
    if (hn::AllFalse(d, is_above)) continue;
    found += static_cast<int32_t>(hn::CompressStore(hn::Iota(di, i), hn::RebindMask(di, is_above), di, above + found));
  }
  for (; i < count; ++i) {
    float sum = 0;
    for (int j = 0; j < queries; ++j) sum += factor[j] * shares[j][i];
    weight[i] = sum;
    if (sum > least) above[found++] = i;
  }
  return found;
}

void ScoreK4Impl(const K4Task& task) {
  const D d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const hn::Rebind<uint8_t, D> d8;
  const hn::RebindToSigned<D> di;
  HWY_ALIGN uint8_t codes[kMaxHeadDim * kSlots];
  for (int tile = 0; tile < task.tiles; ++tile) {
    const uint8_t* packed = task.codes + static_cast<int64_t>(tile) * task.head_dim * 8;
    for (int c = 0; c < task.head_dim; ++c) {
      uint64_t word;
      __builtin_memcpy(&word, packed + c * 8, 8);
      const uint64_t low = word & 0x0f0f0f0f0f0f0f0fULL, high = (word >> 4) & 0x0f0f0f0f0f0f0f0fULL;
      __builtin_memcpy(codes + c * kSlots, &low, 8);
      __builtin_memcpy(codes + c * kSlots + 8, &high, 8);
    }
    for (int first = 0; first < task.queries; first += kQueryTile) {
      const int count = task.queries - first < kQueryTile ? task.queries - first : kQueryTile;
      for (int part = 0; part < kSlots; part += lanes) {
        V sum[kQueryTile];
        for (int j = 0; j < kQueryTile; ++j) sum[j] = hn::Set(d, j < count ? task.bias[first + j] : 0.0f);
        for (int c = 0; c < task.head_dim; ++c) {
          const V code = hn::ConvertTo(d, hn::PromoteTo(di, hn::LoadU(d8, codes + c * kSlots + part)));
          for (int j = 0; j < kQueryTile; ++j) {
            if (j < count) sum[j] = hn::MulAdd(hn::Set(d, task.scaled_query[first + j][c]), code, sum[j]);
          }
        }
        for (int j = 0; j < count; ++j) hn::StoreU(sum[j], d, task.scores[first + j] + tile * kSlots + part);
      }
    }
  }
}

template <int kQueries>
void DotHalvesOf(const HalfRows& rows, int32_t row, const float* const* queries, float* const* scores) {
  const D d;
  const hn::Rebind<hwy::float16_t, D> d16;
  const auto* key = reinterpret_cast<const hwy::float16_t*>(rows.first + row * rows.stride);
  V sum[kQueries];
  for (int j = 0; j < kQueries; ++j) sum[j] = hn::Zero(d);
  for (int c = 0; c < rows.head_dim; c += static_cast<int>(hn::Lanes(d))) {
    const V part = hn::PromoteTo(d, hn::LoadU(d16, key + c));
    for (int j = 0; j < kQueries; ++j) sum[j] = hn::MulAdd(hn::LoadU(d, queries[j] + c), part, sum[j]);
  }
  for (int j = 0; j < kQueries; ++j) scores[j][row] = hn::GetLane(hn::SumOfLanes(d, sum[j]));
}

void DotHalvesImpl(const HalfRows& rows, int32_t queries, const float* const* q, float* const* scores) {
  for (int32_t row = 0; row < rows.count; ++row) {
    for (int j = 0; j < queries; j += kQueryTile) {
      switch (queries - j) {
        case 1: DotHalvesOf<1>(rows, row, q + j, scores + j); break;
        case 2: DotHalvesOf<2>(rows, row, q + j, scores + j); break;
        case 3: DotHalvesOf<3>(rows, row, q + j, scores + j); break;
        default: DotHalvesOf<4>(rows, row, q + j, scores + j); break;
      }
    }
  }
}

}  // namespace

extern const RecallScanKernels kRecallScanKernels;
const RecallScanKernels kRecallScanKernels = {ScoreK4Impl, SharesOfImpl, WeighSharesImpl, DotHalvesImpl};

}  // namespace tidepool::TIDEPOOL_ISA
