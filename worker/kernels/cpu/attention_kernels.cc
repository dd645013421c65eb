// Compiled once for each instruction set: see worker/kernels/CMakeLists.txt.
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "worker/kernels/cpu/attention.h"

namespace tidepool::TIDEPOOL_ISA {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

constexpr int kSlots = 16;
constexpr int kQueryTile = 4;  // queries that share one load of a key or value
using D = hn::CappedTag<float, kSlots>;
using V = hn::Vec<D>;

HWY_INLINE V LoadElements(D d, const float* from) { return hn::LoadU(d, from); }
HWY_INLINE V LoadElements(D d, const hwy::float16_t* from) {
  return hn::PromoteTo(d, hn::LoadU(hn::Rebind<hwy::float16_t, D>(), from));
}

// Scores of kTile queries for the 16 slots of a page whose keys are `keys` [head_dim][16].
template <int kTile>
HWY_INLINE void PageScores(const float* HWY_RESTRICT keys, int head_dim, const float* const* q, float scale,
                           float* const* scores, int64_t first_slot) {
  const D d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  for (int part = 0; part < kSlots; part += lanes) {
    V sum[kTile];
    for (int j = 0; j < kTile; ++j) sum[j] = hn::Zero(d);
    for (int c = 0; c < head_dim; ++c) {
      const V key = hn::Load(d, keys + c * kSlots + part);
      for (int j = 0; j < kTile; ++j) sum[j] = hn::MulAdd(hn::Set(d, q[j][c]), key, sum[j]);
    }
    for (int j = 0; j < kTile; ++j) {
      hn::Store(hn::Mul(sum[j], hn::Set(d, scale)), d, scores[j] + first_slot + part);
    }
  }
}

float MaximumOf(const float* x, int32_t count) {
  const D d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  V best = hn::Set(d, x[0]);
  int32_t i = 0;
  for (; i + lanes <= count; i += lanes) best = hn::Max(best, hn::LoadU(d, x + i));
  float maximum = hn::GetLane(hn::MaxOfLanes(d, best));
  for (; i < count; ++i) maximum = x[i] > maximum ? x[i] : maximum;
  return maximum;
}

// Sixteen partial sums by index modulo 16 on every instruction set, added up in one order.
float SumOf16(const float* partial) {
  float s[8];
  for (int i = 0; i < 8; ++i) s[i] = partial[i] + partial[i + 8];
  for (int i = 0; i < 4; ++i) s[i] += s[i + 4];
  return (s[0] + s[2]) + (s[1] + s[3]);
}

float ExpAndSumImpl(float* x, int32_t count) {
  const D d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const V maximum = hn::Set(d, MaximumOf(x, count));
  HWY_ALIGN float partial[kSlots] = {};
  int32_t i = 0;
  for (; i + kSlots <= count; i += kSlots) {
    for (int part = 0; part < kSlots; part += lanes) {
      const V e = hn::Exp(d, hn::Sub(hn::LoadU(d, x + i + part), maximum));
      hn::StoreU(e, d, x + i + part);
      hn::Store(hn::Add(hn::Load(d, partial + part), e), d, partial + part);
    }
  }
  if (i < count) {
    HWY_ALIGN float tail[kSlots];
    const int rest = count - i;
    for (int k = 0; k < kSlots; ++k) tail[k] = k < rest ? x[i + k] : -hwy::HighestValue<float>();
    for (int part = 0; part < kSlots; part += lanes) {
      hn::Store(hn::Exp(d, hn::Sub(hn::Load(d, tail + part), maximum)), d, tail + part);
    }
    for (int k = 0; k < rest; ++k) {
      x[i + k] = tail[k];
      partial[k] += tail[k];
    }
  }
  return SumOf16(partial);
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
    const auto index = hn::And(hn::Iota(du, static_cast<uint32_t>(part)), hn::Set(du, uint32_t{kPerWord - 1}));
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

// Output of kTile queries: sum over rows of probability * value, in ascending position. kBits: of packed rows; 0: there
// are none.
template <typename T, int kBits, int kTile>
HWY_INLINE void WeightedValues(const AttentionTask& task, int32_t rows, const float* const* weight, int first_query) {
  const D d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  constexpr int kVectors = 4;
  const int head_dim = task.head_dim;
  for (int first = 0; first < head_dim; first += kVectors * lanes) {
    const int vectors = (head_dim - first) / lanes < kVectors ? (head_dim - first) / lanes : kVectors;
    V sum[kTile][kVectors];
    for (int j = 0; j < kTile; ++j) {
      for (int v = 0; v < kVectors; ++v) sum[j][v] = hn::Zero(d);
    }
    auto add = [&](int32_t i, int v, V value) {
      for (int j = 0; j < kTile; ++j) sum[j][v] = hn::MulAdd(hn::Set(d, weight[j][i]), value, sum[j][v]);
    };
    for (int32_t i = 0; i < rows; ++i) {
      const int32_t slot = task.order != nullptr ? task.order[i] : i;
      const void* page = task.pages[slot / kSlots];
      if constexpr (kBits != 0) {
        if (const int half = task.halves[slot / kSlots]; half != 0) {
          const PackedValues<kBits> row(task, static_cast<const uint8_t*>(page), (half - 1) * kSlots + slot % kSlots);
          for (int v = 0; v < vectors; ++v) add(i, v, row.Load(first + v * lanes));
          continue;
        }
      }
      const T* values = static_cast<const T*>(page) + static_cast<int64_t>(kSlots + slot % kSlots) * head_dim + first;
      if (vectors == kVectors) {
        for (int v = 0; v < kVectors; ++v) add(i, v, LoadElements(d, values + v * lanes));
      } else {
        for (int v = 0; v < vectors; ++v) add(i, v, LoadElements(d, values + v * lanes));
      }
    }
    for (int j = 0; j < kTile; ++j) {
      for (int v = 0; v < vectors; ++v) hn::StoreU(sum[j][v], d, task.out[first_query + j] + first + v * lanes);
    }
  }
}

template <typename T, int kBits>
void AttendPacked(const AttentionTask& task, void* scratch) {
  const D d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const int64_t row_floats = (static_cast<int64_t>(task.slots) + kSlots - 1) / kSlots * kSlots;
  float* keys = static_cast<float*>(scratch);
  float* ordered = keys + kSlots * kMaxHeadDim;
  float* all_scores = ordered + row_floats;

  // All scores, page by page: a page's keys are converted once for all queries.
  const int64_t pages = row_floats / kSlots;
  for (int64_t p = 0; p < pages; ++p) {
    if (task.pages[p] == nullptr) continue;
    if (kBits != 0 && task.halves[p] != 0) {
      UnpackKeys<kBits == 0 ? 8 : kBits>(task, static_cast<const uint8_t*>(task.pages[p]), task.halves[p] - 1, keys);
    } else {
      const T* page = static_cast<const T*>(task.pages[p]);
      for (int i = 0; i < task.head_dim * kSlots; i += lanes) hn::Store(LoadElements(d, page + i), d, keys + i);
    }
    int j = 0;
    for (; j < task.queries; j += kQueryTile) {
      float* scores[kQueryTile];
      for (int k = 0; k < kQueryTile; ++k) scores[k] = all_scores + (j + k) * row_floats;
      switch (task.queries - j) {
        case 1: PageScores<1>(keys, task.head_dim, task.q + j, task.scale, scores, p * kSlots); break;
        case 2: PageScores<2>(keys, task.head_dim, task.q + j, task.scale, scores, p * kSlots); break;
        case 3: PageScores<3>(keys, task.head_dim, task.q + j, task.scale, scores, p * kSlots); break;
        default: PageScores<4>(keys, task.head_dim, task.q + j, task.scale, scores, p * kSlots); break;
      }
    }
  }

  // Softmax of each query over the rows it sees, in ascending position.
  for (int j = 0; j < task.queries; ++j) {
    float* scores = all_scores + j * row_floats;
    const int32_t visible = task.visible[j];
    if (task.order != nullptr) {
      for (int32_t i = 0; i < visible; ++i) ordered[i] = scores[task.order[i]];
      for (int32_t i = 0; i < visible; ++i) scores[i] = ordered[i];
    }
    const float sum = ExpAndSumImpl(scores, visible);
    const V inverse = hn::Set(d, 1.0f / sum);
    int32_t i = 0;
    for (; i + lanes <= visible; i += lanes) hn::StoreU(hn::Mul(hn::LoadU(d, scores + i), inverse), d, scores + i);
    for (; i < visible; ++i) scores[i] *= hn::GetLane(inverse);
    for (; i < task.rows; ++i) scores[i] = 0;  // a zero weight leaves a sum as it is, bit for bit
    if (task.column_sums != nullptr) {
      float* sums = task.column_sums[j];
      if (task.order != nullptr) {
        for (int32_t k = 0; k < visible; ++k) sums[task.order[k]] += scores[k];
      } else {
        for (int32_t k = 0; k < visible; ++k) sums[k] += scores[k];
      }
    }
    if (task.probabilities != nullptr) {
      float* to = task.probabilities + j * task.probability_stride;
      for (int32_t k = 0; k < task.rows; ++k) to[k] = scores[k];
    }
  }
  if (task.out == nullptr) return;

  for (int j = 0; j < task.queries; j += kQueryTile) {
    const float* weight[kQueryTile];
    int32_t rows = 0;
    const int tile = task.queries - j < kQueryTile ? task.queries - j : kQueryTile;
    for (int k = 0; k < tile; ++k) {
      weight[k] = all_scores + (j + k) * row_floats;
      rows = task.visible[j + k] > rows ? task.visible[j + k] : rows;
    }
    switch (tile) {
      case 1: WeightedValues<T, kBits, 1>(task, rows, weight, j); break;
      case 2: WeightedValues<T, kBits, 2>(task, rows, weight, j); break;
      case 3: WeightedValues<T, kBits, 3>(task, rows, weight, j); break;
      default: WeightedValues<T, kBits, 4>(task, rows, weight, j); break;
    }
  }
}

template <typename T>
void Attend(const AttentionTask& task, void* scratch) {
  if (task.halves == nullptr) return AttendPacked<T, 0>(task, scratch);
  switch (task.packed) {
    case KvPrecision::kF16: return AttendPacked<T, 0>(task, scratch);
    case KvPrecision::kInt8: return AttendPacked<T, 8>(task, scratch);
    case KvPrecision::kKivi4: return AttendPacked<T, 4>(task, scratch);
    case KvPrecision::kKivi2: return AttendPacked<T, 2>(task, scratch);
  }
}

void AttendF16Impl(const AttentionTask& task, void* scratch) { Attend<hwy::float16_t>(task, scratch); }
void AttendF32Impl(const AttentionTask& task, void* scratch) { Attend<float>(task, scratch); }

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

#if !defined(__F16C__)
// Round to nearest even in integer arithmetic: Highway's emulation of the conversion on SSE4 does not round so.
uint16_t HalfBits(float value) {
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

void FloatToHalfImpl(const float* in, int64_t count, uint16_t* out) {
#if defined(__F16C__)
  const D d;
  const hn::Rebind<hwy::float16_t, D> d16;
  const int lanes = static_cast<int>(hn::Lanes(d));
  hwy::float16_t* to = reinterpret_cast<hwy::float16_t*>(out);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) hn::StoreU(hn::DemoteTo(d16, hn::LoadU(d, in + i)), d16, to + i);
  if (i < count) {
    HWY_ALIGN float rest[kSlots] = {};
    HWY_ALIGN hwy::float16_t halves[kSlots];
    __builtin_memcpy(rest, in + i, (count - i) * sizeof(float));
    hn::StoreU(hn::DemoteTo(d16, hn::Load(d, rest)), d16, halves);
    __builtin_memcpy(out + i, halves, (count - i) * sizeof(uint16_t));
  }
#else
  for (int64_t i = 0; i < count; ++i) out[i] = HalfBits(in[i]);
#endif
}

void HalfToFloatImpl(const uint16_t* in, int64_t count, float* out) {
  const D d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const hwy::float16_t* from = reinterpret_cast<const hwy::float16_t*>(in);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) hn::StoreU(LoadElements(d, from + i), d, out + i);
  if (i < count) {
    HWY_ALIGN uint16_t rest[kSlots] = {};
    HWY_ALIGN float values[kSlots];
    __builtin_memcpy(rest, in + i, (count - i) * sizeof(uint16_t));
    hn::Store(LoadElements(d, reinterpret_cast<const hwy::float16_t*>(rest)), d, values);
    __builtin_memcpy(out + i, values, (count - i) * sizeof(float));
  }
}

}  // namespace

extern const AttentionKernels kAttentionKernels;
const AttentionKernels kAttentionKernels = {AttendF16Impl, AttendF32Impl,   ScoreK4Impl,     ExpAndSumImpl,
                                            SharesOfImpl,  WeighSharesImpl, FloatToHalfImpl, HalfToFloatImpl};

}  // namespace tidepool::TIDEPOOL_ISA
