// Compiled once for each instruction set: see worker/kernels/CMakeLists.txt.
#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "worker/kernels/cpu/exponential.h"
#include "worker/kernels/cpu/lane_numbers.h"
#include "worker/kernels/cpu/recall_scan.h"

namespace tidepool::TIDEPOOL_ISA {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

constexpr int kSlots = 16;
constexpr int kMaxHeadDim = 256;
constexpr int kQueryTile = 4;                                     // queries that share one load of a code
constexpr float kLeastPower = -120.0f, kMostPower = 60 * kLog2E;  // of 2, that a term is
using D = hn::CappedTag<float, kSlots>;
using V = hn::Vec<D>;

// Sixteen partial sums by index modulo 16 on every instruction set, added up in one order.
float SumOf16(const float* partial) {
  float s[8];
  for (int i = 0; i < 8; ++i) s[i] = partial[i] + partial[i + 8];
  for (int i = 0; i < 4; ++i) s[i] += s[i + 4];
  return (s[0] + s[2]) + (s[1] + s[3]);
}

HWY_INLINE hn::Mask<D> Chosen(const uint8_t* which) {
  const hn::RebindToSigned<D> di;
  const hn::Rebind<uint8_t, D> d8;
  return hn::RebindMask(D(), hn::Gt(hn::PromoteTo(di, hn::LoadU(d8, which)), hn::Zero(di)));
}

// 2^y for y = factor * x - maximum, in the range of TwoTo.
HWY_INLINE V TermOf(V x, V factor, V maximum, V least, V cap) {
  return TwoTo(D(), hn::Min(hn::Max(hn::Sub(hn::Mul(x, factor), maximum), least), cap));
}

#if defined(__AVX2__) && !defined(__AVX512F__)

// [mask][lane]: the lanes of the mask in ascending order, then any.
struct FrontTable {
  constexpr FrontTable() {
    for (int mask = 0; mask < 256; ++mask) {
      int found = 0;
      for (int lane = 0; lane < 8; ++lane) {
        if ((mask >> lane & 1) != 0) lanes[mask][found++] = static_cast<uint8_t>(lane);
      }
    }
  }
  uint8_t lanes[256][8] = {};
};
alignas(64) constexpr FrontTable kFrontTable;

// Moves the lanes of a mask to the front, of several vectors. Highway's Compress copies its table of 1 KiB to the stack
// in each call where GCC 12 compiles it for AVX2.
class ToFront {
 public:
  HWY_INLINE explicit ToFront(hn::Mask<D> mask) : bits_(_mm256_movemask_ps(mask.raw)) {
    const auto* lanes = reinterpret_cast<const __m128i*>(kFrontTable.lanes[bits_]);
    from_ = _mm256_cvtepu8_epi32(_mm_loadl_epi64(lanes));
  }
  HWY_INLINE V operator()(V x) const { return V{_mm256_permutevar8x32_ps(x.raw, from_)}; }
  int count() const { return __builtin_popcount(static_cast<unsigned>(bits_)); }

 private:
  int bits_;
  __m256i from_;
};

#else

class ToFront {
 public:
  HWY_INLINE explicit ToFront(hn::Mask<D> mask) : mask_(mask) {}
  HWY_INLINE V operator()(V x) const { return hn::Compress(x, mask_); }
  int count() const { return static_cast<int>(hn::CountTrue(D(), mask_)); }

 private:
  hn::Mask<D> mask_;
};

#endif

void SharesOfImpl(const float* x, const uint8_t* which, int32_t count, float scale, float* shares, ShareSums* sums) {
  constexpr size_t kLanes = hn::MaxLanes(D()), kParts = kSlots / kLanes;
  const D d;
  const V factor = hn::Set(d, scale * kLog2E), lowest = hn::Set(d, -hwy::HighestValue<float>());
  HWY_ALIGN float tail_x[kSlots] = {}, tail_shares[kSlots];
  HWY_ALIGN uint8_t tail_which[kSlots] = {};
  const int32_t whole = count / kSlots * kSlots;
  for (int k = 0; k < count - whole; ++k) {
    tail_x[k] = x[whole + k];
    tail_which[k] = which[whole + k];
  }
  V most[kParts];
  for (V& of_part : most) of_part = lowest;
  auto raise = [&](const float* values, const uint8_t* chosen) HWY_ATTR {
    for (size_t part = 0; part < kParts; ++part) {
      const V value = hn::IfThenElse(Chosen(chosen + part * kLanes), hn::LoadU(d, values + part * kLanes), lowest);
      most[part] = hn::Max(most[part], value);
    }
  };
  for (int32_t i = 0; i < whole; i += kSlots) raise(x + i, which + i);
  raise(tail_x, tail_which);
  for (size_t part = 1; part < kParts; ++part) most[0] = hn::Max(most[0], most[part]);
  const V maximum = hn::Mul(hn::MaxOfLanes(d, most[0]), factor), least = hn::Set(d, kLeastPower),
          cap = hn::Set(d, kMostPower);

  V chosen_sum[kParts], all_sum[kParts];
  for (size_t part = 0; part < kParts; ++part) chosen_sum[part] = all_sum[part] = hn::Zero(d);
  auto add = [&](const float* values, const uint8_t* chosen, float* out, V* all) HWY_ATTR {
    for (size_t part = 0; part < kParts; ++part) {
      const V e = TermOf(hn::LoadU(d, values + part * kLanes), factor, maximum, least, cap);
      const V share = hn::IfThenElseZero(Chosen(chosen + part * kLanes), e);
      hn::StoreU(share, d, out + part * kLanes);
      chosen_sum[part] = hn::Add(chosen_sum[part], share);
      all[part] = hn::Add(all[part], e);
    }
  };
  for (int32_t i = 0; i < whole; i += kSlots) add(x + i, which + i, shares + i, all_sum);
  V tail_e[kParts];
  for (V& of_part : tail_e) of_part = hn::Zero(d);
  add(tail_x, tail_which, tail_shares, tail_e);
  HWY_ALIGN float e[kSlots], chosen_lanes[kSlots], all_lanes[kSlots];
  for (size_t part = 0; part < kParts; ++part) {
    hn::Store(tail_e[part], d, e + part * kLanes);
    hn::Store(chosen_sum[part], d, chosen_lanes + part * kLanes);
    hn::Store(all_sum[part], d, all_lanes + part * kLanes);
  }
  for (int k = 0; k < count - whole; ++k) {
    shares[whole + k] = tail_shares[k];
    all_lanes[k] += e[k];
  }
  sums->chosen = SumOf16(chosen_lanes);
  sums->all = SumOf16(all_lanes);
}

// The rows of a task, a vector of them at once: body(first row, the queries' shares, weights, marks, the queries' x
// where they are wanted). kQueries: theirs, so that they stay in registers; 0: any number.
template <int kQueries, bool kWithX, typename Body>
HWY_INLINE void WeighRows(const WeighRowsTask& task, const Body& body) {
  constexpr int kMost = kQueries > 0 ? kQueries : kMaxWeighQueries;
  const D d;
  const hn::RebindToSigned<D> di;
  const hn::Rebind<uint8_t, D> d8;
  constexpr int kLanes = static_cast<int>(hn::MaxLanes(D()));
  const int queries = kQueries > 0 ? kQueries : task.queries;
  const auto mark = hn::Set(di, task.mark);
  auto weigh = [&](int32_t first, int32_t at, const float* const* of_shares, const float* const* of_x,
                   const uint8_t* which) HWY_ATTR {
    V x[kMost], share[kMost];
    V weight = hn::Zero(d);
    for (int j = 0; j < queries; ++j) {
      if constexpr (kWithX) x[j] = hn::LoadU(d, of_x[j] + at);
      share[j] = hn::LoadU(d, of_shares[j] + at);
      weight = hn::Add(weight, hn::Mul(hn::Set(d, task.factor[j]), share[j]));
    }
    body(first, share, weight, hn::RebindMask(d, hn::Eq(hn::PromoteTo(di, hn::LoadU(d8, which + at)), mark)), x);
  };
  const float *shares[kMost], *x[kMost];
  for (int j = 0; j < queries; ++j) {
    shares[j] = task.shares[j];
    x[j] = kWithX ? task.x[j] : nullptr;
  }
  int32_t i = 0;
  for (; i + kLanes <= task.count; i += kLanes) weigh(i, i, shares, x, task.which);
  if (i == task.count) return;
  HWY_ALIGN float tail_shares[kMost][kLanes] = {}, tail_x[kMost][kLanes] = {};
  HWY_ALIGN uint8_t tail_which[kLanes] = {};
  for (int k = 0; k < task.count - i; ++k) {
    for (int j = 0; j < queries; ++j) {
      tail_shares[j][k] = shares[j][i + k];
      if constexpr (kWithX) tail_x[j][k] = x[j][i + k];
    }
    tail_which[k] = task.which[i + k];
  }
  for (int j = 0; j < queries; ++j) {
    shares[j] = tail_shares[j];
    x[j] = tail_x[j];
  }
  weigh(i, 0, shares, x, tail_which);
}

template <int kQueries>
void SumWeightsOf(const WeighRowsTask& task, WeightSums* sums) {
  const D d;
  const V limit = hn::Set(d, task.least);
  V marked_sum = hn::Zero(d), above_sum = hn::Zero(d);
  WeighRows<kQueries, false>(task, [&](int32_t, const V*, V weight, hn::Mask<D> marked, const V*) HWY_ATTR {
    marked_sum = hn::Add(marked_sum, hn::IfThenElseZero(marked, weight));
    above_sum = hn::Add(above_sum, hn::IfThenElseZero(hn::AndNot(marked, hn::Gt(weight, limit)), weight));
  });
  sums->marked = hn::GetLane(hn::SumOfLanes(d, marked_sum));
  sums->above = hn::GetLane(hn::SumOfLanes(d, above_sum));
}

template <int kQueries>
int32_t ListRowsOf(const WeighRowsTask& task, const ListedRows& listed) {
  constexpr int kMost = kQueries > 0 ? kQueries : kMaxWeighQueries;
  const D d;
  const hn::RebindToSigned<D> di;
  const int queries = kQueries > 0 ? kQueries : task.queries;
  const V limit = hn::Set(d, task.least);
  float *to_x[kMost], *to_share[kMost];
  for (int j = 0; j < queries; ++j) {
    to_x[j] = listed.x[j];
    to_share[j] = listed.shares[j];
  }
  int32_t found = 0;
  WeighRows<kQueries, true>(
      task, [&](int32_t first, const V* share, V weight, hn::Mask<D> marked, const V* x) HWY_ATTR {
        // Without a branch: which are listed is hard to guess. To registers first: to memory it is slow on some
        // machines.
        const ToFront front(hn::Or(hn::Gt(weight, limit), marked));
        hn::StoreU(hn::BitCast(di, front(hn::BitCast(d, LanesFrom(di, first)))), di, listed.rows + found);
        hn::StoreU(front(weight), d, listed.weight + found);
        for (int j = 0; j < queries; ++j) {
          hn::StoreU(front(x[j]), d, to_x[j] + found);
          hn::StoreU(front(share[j]), d, to_share[j] + found);
        }
        found += front.count();
      });
  return found;
}

void SumWeightsImpl(const WeighRowsTask& task, WeightSums* sums) {
  switch (task.queries) {
    case 1: return SumWeightsOf<1>(task, sums);
    case 2: return SumWeightsOf<2>(task, sums);
    case 3: return SumWeightsOf<3>(task, sums);
    case 4: return SumWeightsOf<4>(task, sums);
    default: return SumWeightsOf<0>(task, sums);
  }
}

int32_t ListRowsImpl(const WeighRowsTask& task, const ListedRows& listed) {
  switch (task.queries) {
    case 1: return ListRowsOf<1>(task, listed);
    case 2: return ListRowsOf<2>(task, listed);
    case 3: return ListRowsOf<3>(task, listed);
    case 4: return ListRowsOf<4>(task, listed);
    default: return ListRowsOf<0>(task, listed);
  }
}

int32_t WeighSharesImpl(const WeighSharesTask& task) {
  const D d;
  const hn::RebindToSigned<D> di;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const V limit = hn::Set(d, task.least);
  int32_t found = 0, i = 0;
  for (; i + lanes <= task.count; i += lanes) {
    V sum = hn::Zero(d);
    for (int j = 0; j < task.queries; ++j) {
      sum = hn::Add(sum, hn::Mul(hn::Set(d, task.factor[j]), hn::LoadU(d, task.shares[j] + i)));
    }
    hn::StoreU(sum, d, task.weight + i);
    // Without a branch: which are above is hard to guess. To registers first: to memory it is slow on some machines.
    const ToFront front(hn::Gt(sum, limit));
    hn::StoreU(hn::BitCast(di, front(hn::BitCast(d, LanesFrom(di, i)))), di, task.above + found);
    hn::StoreU(front(sum), d, task.above_weight + found);
    found += front.count();
  }
  for (; i < task.count; ++i) {
    float sum = 0;
    for (int j = 0; j < task.queries; ++j) sum += task.factor[j] * task.shares[j][i];
    task.weight[i] = sum;
    if (!(sum > task.least)) continue;
    task.above[found] = i;
    task.above_weight[found++] = sum;
  }
  return found;
}

float CorrectSharesImpl(const float* estimate, const float* exact, int32_t count, float scale, float* shares) {
  constexpr size_t kLanes = hn::MaxLanes(D()), kParts = kSlots / kLanes;
  const D d;
  const V factor = hn::Set(d, scale * kLog2E), least = hn::Set(d, kLeastPower), cap = hn::Set(d, kMostPower);
  V sum[kParts];
  for (V& of_part : sum) of_part = hn::Zero(d);
  auto correct = [&](const float* from, const float* to, float* out) HWY_ATTR {
    for (size_t part = 0; part < kParts; ++part) {
      const size_t at = part * kLanes;
      const V y = hn::Mul(hn::Sub(hn::LoadU(d, to + at), hn::LoadU(d, from + at)), factor);
      const V share = hn::Mul(hn::LoadU(d, out + at), TwoTo(d, hn::Min(hn::Max(y, least), cap)));
      hn::StoreU(share, d, out + at);
      sum[part] = hn::Add(sum[part], share);
    }
  };
  const int32_t whole = count / kSlots * kSlots;
  for (int32_t i = 0; i < whole; i += kSlots) correct(estimate + i, exact + i, shares + i);
  HWY_ALIGN float tail[3][kSlots] = {};
  for (int k = 0; k < count - whole; ++k) {
    tail[0][k] = estimate[whole + k];
    tail[1][k] = exact[whole + k];
    tail[2][k] = shares[whole + k];
  }
  correct(tail[0], tail[1], tail[2]);
  for (int k = 0; k < count - whole; ++k) shares[whole + k] = tail[2][k];
  HWY_ALIGN float lanes[kSlots];
  for (size_t part = 0; part < kParts; ++part) hn::Store(sum[part], d, lanes + part * kLanes);
  return SumOf16(lanes);
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

// scores[j][row] of one key.
template <int kQueries>
void DotHalvesOf(const uint16_t* key, int32_t head_dim, int32_t row, const float* const* queries,
                 float* const* scores) {
  const D d;
  const hn::Rebind<hwy::float16_t, D> d16;
  const auto* halves = reinterpret_cast<const hwy::float16_t*>(key);
  V sum[kQueries];
  for (int j = 0; j < kQueries; ++j) sum[j] = hn::Zero(d);
  for (int c = 0; c < head_dim; c += static_cast<int>(hn::Lanes(d))) {
    const V part = hn::PromoteTo(d, hn::LoadU(d16, halves + c));
    for (int j = 0; j < kQueries; ++j) sum[j] = hn::MulAdd(hn::LoadU(d, queries[j] + c), part, sum[j]);
  }
  for (int j = 0; j < kQueries; ++j) scores[j][row] = hn::GetLane(hn::SumOfLanes(d, sum[j]));
}

void DotKey(const uint16_t* key, int32_t head_dim, int32_t row, int32_t queries, const float* const* q,
            float* const* scores) {
  for (int j = 0; j < queries; j += kQueryTile) {
    switch (queries - j) {
      case 1: DotHalvesOf<1>(key, head_dim, row, q + j, scores + j); break;
      case 2: DotHalvesOf<2>(key, head_dim, row, q + j, scores + j); break;
      case 3: DotHalvesOf<3>(key, head_dim, row, q + j, scores + j); break;
      default: DotHalvesOf<4>(key, head_dim, row, q + j, scores + j); break;
    }
  }
}

void DotHalvesImpl(const HalfRows& rows, int32_t queries, const float* const* q, float* const* scores) {
  for (int32_t row = 0; row < rows.count; ++row) {
    DotKey(rows.first + row * rows.stride, rows.head_dim, row, queries, q, scores);
  }
}

void DotHalvesAtImpl(const uint16_t* const* keys, int32_t count, int32_t head_dim, int32_t queries,
                     const float* const* q, float* const* scores) {
  constexpr int kAhead = 12;  // keys on their way from memory: more than that, and some are dropped
  constexpr int kLine = 64 / sizeof(uint16_t);
  auto fetch = [&](int32_t row) HWY_ATTR {
    for (int32_t c = 0; c < head_dim; c += kLine) hwy::Prefetch(keys[row] + c);
    hwy::Prefetch(keys[row] + head_dim - 1);
  };
  for (int32_t row = 0; row < count && row < kAhead; ++row) fetch(row);
  for (int32_t row = 0; row < count; ++row) {
    if (row + kAhead < count) fetch(row + kAhead);
    DotKey(keys[row], head_dim, row, queries, q, scores);
  }
}

}  // namespace

extern const RecallScanKernels kRecallScanKernels;
const RecallScanKernels kRecallScanKernels = {ScoreK4Impl,     SharesOfImpl,      SumWeightsImpl, ListRowsImpl,
                                              WeighSharesImpl, CorrectSharesImpl, DotHalvesImpl,  DotHalvesAtImpl};

}  // namespace tidepool::TIDEPOOL_ISA
