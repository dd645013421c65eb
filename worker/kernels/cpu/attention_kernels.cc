// Compiled once for each instruction set: see worker/kernels/CMakeLists.txt.
#include <type_traits>

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "worker/kernels/cpu/attention.h"
#include "worker/kernels/cpu/attention_elements.h"
#include "worker/kernels/cpu/half_float.h"

namespace tidepool::TIDEPOOL_ISA {
namespace {

constexpr int kQueryTile = 4;  // queries that share one load of a key or value
// Vectors that are worked on together, so that each of kQueryTile queries has sums that do not wait for each other, as
// many as there are registers for.
constexpr int kTogether = kLanes == kSlots ? 4 : 2;
constexpr int kConvertQueries = 8;  // from so many queries on keys and values are converted once for all

// Scores of kTile queries for kVectors vectors of slots. load(v, c): channel c of the v-th.
template <int kTile, int kVectors, typename Load>
HWY_INLINE void SlotScores(const Load& load, int head_dim, const float* const* q, float scale, float* const* scores) {
  const D d;
  V sum[kTile][kVectors];
  for (int j = 0; j < kTile; ++j) {
    for (int v = 0; v < kVectors; ++v) sum[j][v] = hn::Zero(d);
  }
  for (int c = 0; c < head_dim; ++c) {
    V keys[kVectors];
    for (int v = 0; v < kVectors; ++v) keys[v] = load(v, c);
    for (int j = 0; j < kTile; ++j) {
      const V query = hn::Set(d, q[j][c]);
      for (int v = 0; v < kVectors; ++v) sum[j][v] = hn::MulAdd(query, keys[v], sum[j][v]);
    }
  }
  for (int j = 0; j < kTile; ++j) {
    for (int v = 0; v < kVectors; ++v) {
      hn::StoreU(hn::Mul(sum[j][v], hn::Set(d, scale)), d, scores[j] + v * kLanes);
    }
  }
}

template <int kVectors, typename Load>
HWY_INLINE void SlotScoresOfAll(const AttentionTask& task, const Load& load, float* scores, int64_t stride) {
  for (int j = 0; j < task.queries; j += kQueryTile) {
    float* to[kQueryTile];
    for (int k = 0; k < kQueryTile; ++k) to[k] = scores + (j + k) * stride;
    switch (task.queries - j) {
      case 1: SlotScores<1, kVectors>(load, task.head_dim, task.q + j, task.scale, to); break;
      case 2: SlotScores<2, kVectors>(load, task.head_dim, task.q + j, task.scale, to); break;
      case 3: SlotScores<3, kVectors>(load, task.head_dim, task.q + j, task.scale, to); break;
      default: SlotScores<4, kVectors>(load, task.head_dim, task.q + j, task.scale, to); break;
    }
  }
}

// Of whole pages, their keys one after the other in `pages`.
template <int kPages, typename K>
HWY_INLINE void PageScores(const AttentionTask& task, const K* const* pages, float* scores, int64_t stride) {
  const D d;
  if constexpr (kLanes == kSlots) {
    SlotScoresOfAll<kPages>(
        task, [&](int v, int c) { return LoadElements(d, pages[v] + c * kSlots); }, scores, stride);
  } else {
    static_assert(kPages == 1);
    for (int part = 0; part < kSlots; part += kTogether * kLanes) {
      const K* key = pages[0] + part;
      SlotScoresOfAll<kTogether>(
          task, [&](int v, int c) { return LoadElements(d, key + v * kLanes + c * kSlots); }, scores + part, stride);
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

// x[i] = exp(x[i] - most); the sum of them.
float ExpAndSumFrom(float* x, int32_t count, float most) {
  const D d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const V maximum = hn::Set(d, most);
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

float ExpAndSumImpl(float* x, int32_t count) { return ExpAndSumFrom(x, count, MaximumOf(x, count)); }

// Of halves of int8 pages: a vector holds a half's slots.
template <int kHalves>
HWY_INLINE void Int8PageScores(const AttentionTask& task, const void* const* pages, const uint8_t* halves,
                               float* scores, int64_t stride) {
  const D d;
  const uint8_t* codes[kHalves];
  V scale[kHalves];
  for (int v = 0; v < kHalves; ++v) {
    const auto* page = static_cast<const uint8_t*>(pages[v]);
    const int half = halves[v] - 1;
    codes[v] = page + task.packed_layout->key_codes + int64_t{half} * task.head_dim * kSlots;
    scale[v] = LoadElements(d, reinterpret_cast<const hwy::float16_t*>(page) + half * kSlots);
  }
  SlotScoresOfAll<kHalves>(
      task, [&](int v, int c) { return hn::Mul(LoadCodes<8>(codes[v] + c * kSlots, 0), scale[v]); }, scores, stride);
}

// kTile queries' sums over the rows of weight * value, in their order. load(i, channel): values of row i from a channel
// on, one for each lane.
template <int kTile, typename Load>
HWY_INLINE void WeightedValues(int32_t rows, int head_dim, const float* weight, int64_t stride, const Load& load,
                               float* const* out) {
  const D d;
  auto columns = [&](int first, auto vectors) {
    constexpr int kVectors = decltype(vectors)::value;
    V sum[kTile][kVectors];
    for (int j = 0; j < kTile; ++j) {
      for (int v = 0; v < kVectors; ++v) sum[j][v] = hn::Zero(d);
    }
    for (int32_t i = 0; i < rows; ++i) {
      V value[kVectors];
      for (int v = 0; v < kVectors; ++v) value[v] = load(i, first + v * kLanes);
      for (int j = 0; j < kTile; ++j) {
        const V factor = hn::Set(d, weight[j * stride + i]);
        for (int v = 0; v < kVectors; ++v) sum[j][v] = hn::MulAdd(factor, value[v], sum[j][v]);
      }
    }
    for (int j = 0; j < kTile; ++j) {
      for (int v = 0; v < kVectors; ++v) hn::StoreU(sum[j][v], d, out[j] + first + v * kLanes);
    }
  };
  int first = 0;
  for (; first + kTogether * kLanes <= head_dim; first += kTogether * kLanes) {
    columns(first, std::integral_constant<int, kTogether>());
  }
  for (; first < head_dim; first += kLanes) columns(first, std::integral_constant<int, 1>());
}

template <typename Load>
HWY_INLINE void WeightedValuesOfAll(const AttentionTask& task, int32_t rows, const float* weights, int64_t stride,
                                    const Load& load, float* partial) {
  for (int j = 0; j < task.queries; j += kQueryTile) {
    float* to[kQueryTile];
    for (int k = 0; k < kQueryTile; ++k) to[k] = partial + (j + k) * PartialFloats(task.head_dim);
    const float* weight = weights + j * stride;
    switch (task.queries - j) {
      case 1: WeightedValues<1>(rows, task.head_dim, weight, stride, load, to); break;
      case 2: WeightedValues<2>(rows, task.head_dim, weight, stride, load, to); break;
      case 3: WeightedValues<3>(rows, task.head_dim, weight, stride, load, to); break;
      default: WeightedValues<4>(rows, task.head_dim, weight, stride, load, to); break;
    }
  }
}

// Starts the machine's own reading ahead in a page.
HWY_INLINE void PrefetchBeginning(const void* page) {
  for (int line = 0; line < 4; ++line) __builtin_prefetch(static_cast<const char*>(page) + line * 64);
}

template <typename T, int kBits>
void ScorePages(const AttentionTask& task, int32_t first, int32_t end, float* scores, int64_t stride, float* keys) {
  const D d;
  constexpr int kPages = kLanes == kSlots ? kTogether : 1;  // together
  const bool few = task.queries < kConvertQueries;
  const bool convert = !std::is_same_v<T, float> && !few;
  const bool direct = kBits == 8 && kLanes == kSlots && few;  // codes need not be expanded in memory
  const int64_t elements = int64_t{task.head_dim} * kSlots;
  auto packed = [&](int32_t p) { return kBits != 0 && task.halves[p] != 0; };
  auto prefetch = [&](int32_t p) {
    if (task.pages[p] == nullptr) return;
    const auto* page = static_cast<const uint8_t*>(task.pages[p]);
    if (packed(p)) page += task.packed_layout->key_codes + int64_t{task.halves[p] - 1} * task.head_dim * kSlots;
    PrefetchBeginning(page);
  };
  // With an order, values are read here and there; so they are brought near as their keys pass, page by page.
  const bool values_too = task.order != nullptr && task.out != nullptr;
  auto prefetch_values = [&](int32_t p) {
    const auto* page = static_cast<const char*>(task.pages[p]) + elements * sizeof(T);
    for (size_t line = 0; line < elements * sizeof(T); line += 64) __builtin_prefetch(page + line, 0, 2);
  };
  for (int32_t p = first; p < end;) {
    if (task.pages[p] == nullptr) {
      ++p;
      continue;
    }
    float* to = scores + int64_t{p - first} * kSlots;
    int together = 0;
    const bool of_packed = packed(p);
    while (together < kPages && p + together < end && task.pages[p + together] != nullptr &&
           packed(p + together) == of_packed) {
      ++together;
    }
    if (together < kPages || (of_packed && !direct)) together = 1;
    p += together;
    const void* const* pages = task.pages + (p - together);
    if constexpr (kBits == 8 && kLanes == kSlots) {
      if (of_packed && direct) {
        for (int32_t next = p; next < end && next < p + kPages; ++next) {
          if (task.pages[next] == nullptr) continue;
          const auto* page = static_cast<const uint8_t*>(task.pages[next]);
          if (packed(next))
            page += task.packed_layout->key_codes + int64_t{task.halves[next] - 1} * task.head_dim * kSlots;
          for (int line = 0; line < task.head_dim * kSlots; line += 64) __builtin_prefetch(page + line);
        }
        const uint8_t* halves = task.halves + (p - together);
        if (together == kPages) {
          Int8PageScores<kPages>(task, pages, halves, to, stride);
        } else {
          Int8PageScores<1>(task, pages, halves, to, stride);
        }
        continue;
      }
    }
    auto score = [&](auto keys_of) {
      if (together == kPages) {
        PageScores<kPages>(task, keys_of, to, stride);
      } else {
        PageScores<1>(task, keys_of, to, stride);
      }
    };
    if (values_too && !of_packed) {
      for (int32_t k = p - together; k < p; ++k) prefetch_values(k);
    }
    const float* converted[kPages];
    if (convert || of_packed) {
      for (int k = 0; k < together; ++k) {
        float* expanded = keys + k * elements;
        converted[k] = expanded;
        if (of_packed) {
          UnpackKeys<kBits == 0 ? 8 : kBits>(task, static_cast<const uint8_t*>(pages[0]), task.halves[p - 1] - 1, keys);
        } else {
          const T* page = static_cast<const T*>(pages[k]);
          for (int64_t i = 0; i < elements; i += kLanes) hn::StoreU(LoadElements(d, page + i), d, expanded + i);
        }
      }
      score(static_cast<const float* const*>(converted));
      continue;
    }
    for (int32_t next = p; next < end && next < p + kPages; ++next) prefetch(next);
    const T* keys_of[kPages];
    for (int k = 0; k < together; ++k) keys_of[k] = static_cast<const T*>(pages[k]);
    score(static_cast<const T* const*>(keys_of));
  }
}

// Scores in the places of the part's weights [queries][stride] become weights exp(score - maximum), their sums and
// maxima and the weighted values go to `partial`.
template <typename T, int kBits>
void FoldPart(const AttentionTask& task, int32_t part, float* weights, int64_t stride, float* values, float* partial) {
  const D d;
  const int head_dim = task.head_dim;
  const int32_t first = part * kPartRows;
  const int32_t rows = task.rows - first < kPartRows ? task.rows - first : kPartRows;
  int32_t most = 0;  // rows that some query sees
  for (int j = 0; j < task.queries; ++j) {
    float* weight = weights + j * stride;
    int32_t visible = task.visible[j] - first;
    visible = visible < 0 ? 0 : visible > rows ? rows : visible;
    most = visible > most ? visible : most;
    float* ends = partial + j * PartialFloats(head_dim) + head_dim;
    ends[0] = visible > 0 ? MaximumOf(weight, visible) : -hwy::HighestValue<float>();
    ends[1] = visible > 0 ? ExpAndSumFrom(weight, visible, ends[0]) : 0.0f;
    for (int32_t i = visible; i < rows; ++i) weight[i] = 0;  // a zero weight leaves a sum as it is, bit for bit
  }
  if (task.out == nullptr) return;

  constexpr int kAhead = 8;  // rows on their way from memory
  const T* row[kPartRows + kAhead];
  auto find = [&](int32_t i) {
    const int32_t slot = task.order != nullptr ? task.order[first + i] : first + i;
    return static_cast<const T*>(task.pages[slot / kSlots]) + static_cast<int64_t>(kSlots + slot % kSlots) * head_dim;
  };
  if (kBits == 0 && (std::is_same_v<T, float> || task.queries < kConvertQueries)) {
    for (int32_t i = 0; i < most; ++i) row[i] = find(i);
    if (task.order == nullptr || most == 0) {
      WeightedValuesOfAll(
          task, most, weights, stride, [&](int32_t i, int c) { return LoadElements(D(), row[i] + c); }, partial);
      return;
    }
    // Rows lie here and there, and the machine reads nothing ahead by itself.
    for (int i = 0; i < kAhead; ++i) row[most + i] = row[most - 1];
    auto load = [&](int32_t i, int c) {
      __builtin_prefetch(row[i + kAhead] + c);
      return LoadElements(D(), row[i] + c);
    };
    WeightedValuesOfAll(task, most, weights, stride, load, partial);
    return;
  }
  if constexpr (kBits == 8) {
    if (task.queries < kConvertQueries && AllPacked(task, first, most)) {
      const uint8_t* codes[kPartRows];
      float scale[kPartRows];
      for (int32_t i = 0; i < most; ++i) FindInt8Values(task, task.order[first + i], &codes[i], &scale[i]);
      WeightedValuesOfAll(
          task, most, weights, stride,
          [&](int32_t i, int c) { return hn::Mul(LoadCodes<8>(codes[i] + c, 0), hn::Set(D(), scale[i])); }, partial);
      return;
    }
  }
  for (int32_t i = 0; i < most; ++i) {
    float* to = values + int64_t{i} * head_dim;
    if constexpr (kBits != 0) {
      const int32_t slot = task.order != nullptr ? task.order[first + i] : first + i;
      if (const int half = task.halves[slot / kSlots]; half != 0) {
        const PackedValues<kBits> packed(task, static_cast<const uint8_t*>(task.pages[slot / kSlots]),
                                         (half - 1) * kSlots + slot % kSlots);
        for (int c = 0; c < head_dim; c += kLanes) hn::StoreU(packed.Load(c), d, to + c);
        continue;
      }
    }
    const T* from = find(i);
    for (int c = 0; c < head_dim; c += kLanes) hn::StoreU(LoadElements(d, from + c), d, to + c);
  }
  WeightedValuesOfAll(
      task, most, weights, stride, [&](int32_t i, int c) { return hn::LoadU(D(), values + int64_t{i} * head_dim + c); },
      partial);
}

// One more part into the sums of what came before it.
void MergePart(const AttentionTask& task, bool first, const float* partial, float* sums) {
  const D d;
  const int head_dim = task.head_dim;
  const int64_t floats = PartialFloats(head_dim);
  for (int j = 0; j < task.queries; ++j, partial += floats, sums += floats) {
    if (first) {
      for (int c = 0; c < head_dim; c += kLanes) hn::StoreU(hn::LoadU(d, partial + c), d, sums + c);
      sums[head_dim] = partial[head_dim];
      sums[head_dim + 1] = partial[head_dim + 1];
      continue;
    }
    if (partial[head_dim + 1] == 0) continue;  // sees nothing of it
    const float before = sums[head_dim], now = partial[head_dim], most = before > now ? before : now;
    const V old_factor = hn::Exp(d, hn::Set(d, before - most)), new_factor = hn::Exp(d, hn::Set(d, now - most));
    for (int c = 0; c < head_dim; c += kLanes) {
      const V sum = hn::Mul(hn::LoadU(d, sums + c), old_factor);
      hn::StoreU(hn::MulAdd(hn::LoadU(d, partial + c), new_factor, sum), d, sums + c);
    }
    sums[head_dim] = most;
    sums[head_dim + 1] = sums[head_dim + 1] * hn::GetLane(old_factor) + partial[head_dim + 1] * hn::GetLane(new_factor);
  }
}

void DivideSums(const AttentionTask& task, const float* sums) {
  const D d;
  const int64_t floats = PartialFloats(task.head_dim);
  for (int j = 0; j < task.queries; ++j, sums += floats) {
    const V inverse = hn::Set(d, 1.0f / sums[task.head_dim + 1]);
    for (int c = 0; c < task.head_dim; c += kLanes) {
      hn::StoreU(hn::Mul(hn::LoadU(d, sums + c), inverse), d, task.out[j] + c);
    }
  }
}

// Of kQueries queries, one after the other: columns[j][slot of row k] += weights[j * stride + k - first] * factors[j].
// Most rows lie beside their neighbours.
template <int kQueries>
void AddToColumns(const float* weights, int64_t stride, const float* factors, const int32_t* order, int32_t first,
                  int32_t end, float* const* columns) {
  const D d;
  const hn::RebindToSigned<D> di;
  for (int32_t k = first; k < end; k += kSlots, weights += kSlots) {
    const int32_t count = end - k < kSlots ? end - k : kSlots;
    const int32_t slot = order != nullptr ? order[k] : k;
    bool beside = count == kSlots;
    for (int part = 0; part < kSlots && beside && order != nullptr; part += kLanes) {
      beside = hn::AllTrue(di, hn::Eq(hn::LoadU(di, order + k + part), hn::Iota(di, slot + part)));
    }
    for (int j = 0; j < kQueries; ++j) {
      const float* weight = weights + j * stride;
      float* column = columns[j];
      if (!beside) {
        for (int32_t i = 0; i < count; ++i) column[order != nullptr ? order[k + i] : k + i] += weight[i] * factors[j];
        continue;
      }
      for (int part = 0; part < kSlots; part += kLanes) {
        const V share = hn::Mul(hn::LoadU(d, weight + part), hn::Set(d, factors[j]));
        hn::StoreU(hn::Add(hn::LoadU(d, column + slot + part), share), d, column + slot + part);
      }
    }
  }
}

// What the policies want of the attention, from each part's weights and the maximum that they are relative to.
void GiveProbabilities(const AttentionTask& task, const float* weights, const float* partials, const float* sums) {
  const D d;
  const int32_t parts = PartsOf(task.rows);
  const int64_t stride = int64_t{parts} * kPartRows;
  // Of up to kQueryTile queries from the j-th on, a part.
  auto give = [&](int32_t part, int j, int queries) {
    float factors[kQueryTile];
    for (int i = 0; i < queries; ++i) {
      const float* ends = sums + (j + i) * PartialFloats(task.head_dim) + task.head_dim;
      const float most =
          partials[(int64_t{part} * task.queries + j + i) * PartialFloats(task.head_dim) + task.head_dim];
      factors[i] = hn::GetLane(hn::Exp(d, hn::Set(d, most - ends[0]))) * (1.0f / ends[1]);
    }
    const int32_t first = part * kPartRows, end = part == parts - 1 ? task.rows : first + kPartRows;
    const float* of_part = weights + j * stride + first;
    if (task.column_sums != nullptr) {
      float* const* columns = task.column_sums + j;
      switch (queries) {
        case 1: AddToColumns<1>(of_part, stride, factors, task.order, first, end, columns); break;
        case 2: AddToColumns<2>(of_part, stride, factors, task.order, first, end, columns); break;
        case 3: AddToColumns<3>(of_part, stride, factors, task.order, first, end, columns); break;
        default: AddToColumns<4>(of_part, stride, factors, task.order, first, end, columns); break;
      }
    }
    if (task.probabilities == nullptr) return;
    for (int i = 0; i < queries; ++i) {
      float* to = task.probabilities + (j + i) * task.probability_stride;
      for (int32_t k = first; k < end; ++k) to[k] = of_part[i * stride + k - first] * factors[i];
    }
  };
  for (int j = 0; j < task.queries; j += kQueryTile) {
    const int queries = task.queries - j < kQueryTile ? task.queries - j : kQueryTile;
    for (int32_t part = 0; part < parts; ++part) give(part, j, queries);
  }
}

void MergePartsImpl(const AttentionTask& task, const float* partials, const float* weights, float* sums) {
  const int64_t floats = task.queries * PartialFloats(task.head_dim);
  for (int32_t part = 0; part < PartsOf(task.rows); ++part) MergePart(task, part == 0, partials + part * floats, sums);
  if (weights != nullptr) GiveProbabilities(task, weights, partials, sums);
  if (task.out != nullptr) DivideSums(task, sums);
}

// `rows`: kPartRows * head_dim floats.
template <typename T, int kBits>
void AttendPart(const AttentionTask& task, int32_t part, const float* scores, float* weights, int64_t stride,
                float* rows, float* partial) {
  const int32_t first = part * kPartRows, end = task.rows - first < kPartRows ? task.rows : first + kPartRows;
  if (task.column_sums != nullptr && task.queries <= kQueryTile) {  // they are far, and needed when all parts are done
    for (int j = 0; j < task.queries; ++j) {
      for (int32_t k = first; k < end; k += kSlots) {
        __builtin_prefetch(task.column_sums[j] + (task.order != nullptr ? task.order[k] : k));
      }
    }
  }
  if (task.order == nullptr) {
    ScorePages<T, kBits>(task, first / kSlots, (end + kSlots - 1) / kSlots, weights, stride, rows);
  } else {
    for (int j = 0; j < task.queries; ++j) {
      const float* from = scores + j * SlotFloats(task.slots);
      const int32_t* order = task.order + first;
      float* to = weights + j * stride;
      const D d;
      const hn::RebindToSigned<D> di;
      int32_t i = 0;
      for (; i + kLanes <= end - first; i += kLanes)
        hn::StoreU(hn::GatherIndex(d, from, hn::LoadU(di, order + i)), d, to + i);
      for (; i < end - first; ++i) to[i] = from[order[i]];
    }
  }
  FoldPart<T, kBits>(task, part, weights, stride, rows, partial);
}

template <typename T, int kBits>
void AttendAll(const AttentionTask& task, float* scratch) {
  const bool keep = task.column_sums != nullptr || task.probabilities != nullptr;
  const int32_t parts = PartsOf(task.rows);
  const AttentionScratch at = ScratchOf(task);
  const int64_t floats = task.queries * PartialFloats(task.head_dim);
  float *weights = scratch + at.weights, *partials = scratch + at.partials, *sums = scratch + at.sums;
  int32_t scored = 0;  // pages, with an order
  for (int32_t part = 0; part < parts; ++part) {
    if (task.order != nullptr) {
      // No sooner than they are needed: the values behind the keys are near then.
      constexpr int32_t kAtOnce = 2 * kTogether;
      const int32_t needed = (PagesNeeded(task, part) + kAtOnce - 1) / kAtOnce * kAtOnce;
      const auto pages = static_cast<int32_t>(SlotFloats(task.slots) / kSlots);
      const int32_t end = needed < pages ? needed : pages;
      if (end > scored) {
        ScorePages<T, kBits>(task, scored, end, scratch + at.scores + int64_t{scored} * kSlots, SlotFloats(task.slots),
                             scratch + at.rows);
        scored = end;
      }
    }
    // Weights that nobody wants, and sums that are merged at once, stay in one place.
    float* partial = partials + (keep ? part * floats : 0);
    AttendPart<T, kBits>(task, part, scratch + at.scores, weights + (keep ? int64_t{part} * kPartRows : 0),
                         keep ? int64_t{parts} * kPartRows : kPartRows, scratch + at.rows, partial);
    MergePart(task, part == 0, partial, sums);
  }
  if (keep) GiveProbabilities(task, weights, partials, sums);
  if (task.out != nullptr) DivideSums(task, sums);
}

// body(bits) with the bits of the task's packed rows as a constant; 0: there are none.
template <typename Body>
void WithBits(const AttentionTask& task, const Body& body) {
  if (task.halves == nullptr) return body(std::integral_constant<int, 0>());
  switch (task.packed) {
    case KvPrecision::kF16: return body(std::integral_constant<int, 0>());
    case KvPrecision::kInt8: return body(std::integral_constant<int, 8>());
    case KvPrecision::kKivi4: return body(std::integral_constant<int, 4>());
    case KvPrecision::kKivi2: return body(std::integral_constant<int, 2>());
  }
}

template <typename T>
void AttendImpl(const AttentionTask& task, float* scratch) {
  WithBits(task, [&](auto bits) { AttendAll<T, bits>(task, scratch); });
}

template <typename T>
void ScorePagesImpl(const AttentionTask& task, int32_t first, int32_t end, float* scores, float* scratch) {
  WithBits(task, [&](auto bits) {
    ScorePages<T, bits>(task, first, end, scores + int64_t{first} * kSlots, SlotFloats(task.slots), scratch);
  });
}

template <typename T>
void AttendPartImpl(const AttentionTask& task, int32_t part, const float* scores, float* weights, float* partial,
                    float* scratch) {
  float* rows = scratch + int64_t{task.queries} * kPartRows;
  const int64_t stride = weights == nullptr ? kPartRows : int64_t{PartsOf(task.rows)} * kPartRows;
  weights = weights == nullptr ? scratch : weights + int64_t{part} * kPartRows;
  WithBits(task, [&](auto bits) { AttendPart<T, bits>(task, part, scores, weights, stride, rows, partial); });
}

}  // namespace

extern const AttentionKernels kAttentionKernels;
const AttentionKernels kAttentionKernels = {
    {AttendImpl<hwy::float16_t>, ScorePagesImpl<hwy::float16_t>, AttendPartImpl<hwy::float16_t>},
    {AttendImpl<float>, ScorePagesImpl<float>, AttendPartImpl<float>},
    MergePartsImpl,
    ExpAndSumImpl,
    half::FromFloat,
    half::ToFloat};

}  // namespace tidepool::TIDEPOOL_ISA
