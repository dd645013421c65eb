// Compiled once for each instruction set: see worker/kernels/CMakeLists.txt.
#include <type_traits>

#include "hwy/highway.h"
#include "worker/kernels/cpu/attention.h"
#include "worker/kernels/cpu/attention_elements.h"
#include "worker/kernels/cpu/attention_scores.h"
#include "worker/kernels/cpu/attention_sums.h"
#include "worker/kernels/cpu/exponential.h"
#include "worker/kernels/cpu/half_float.h"
#include "worker/kernels/cpu/lane_numbers.h"

namespace tidepool::TIDEPOOL_ISA {
namespace {

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

// x[i] = exp(x[i] - most); the sum of them. meanwhile(i): called before the i-th kSlots of them.
template <typename Meanwhile>
HWY_INLINE float ExpAndSumFrom(float* x, int32_t count, float most, const Meanwhile& meanwhile) {
  const D d;
  const V maximum = hn::Set(d, most);
  constexpr int kVectors = kSlots / kLanes;
  V sums[kVectors];
  for (V& sum : sums) sum = hn::Zero(d);
  int32_t i = 0;
  for (; i + kSlots <= count; i += kSlots) {
    meanwhile(i / kSlots);
    for (int v = 0; v < kVectors; ++v) {
      const V e = Exponential(d, hn::Sub(hn::LoadU(d, x + i + v * kLanes), maximum));
      hn::StoreU(e, d, x + i + v * kLanes);
      sums[v] = hn::Add(sums[v], e);
    }
  }
  HWY_ALIGN float partial[kSlots];
  for (int v = 0; v < kVectors; ++v) hn::Store(sums[v], d, partial + v * kLanes);
  if (i < count) {
    HWY_ALIGN float tail[kSlots];
    const int rest = count - i;
    for (int k = 0; k < kSlots; ++k) tail[k] = k < rest ? x[i + k] : -hwy::HighestValue<float>();
    for (int part = 0; part < kSlots; part += kLanes) {
      hn::Store(Exponential(d, hn::Sub(hn::Load(d, tail + part), maximum)), d, tail + part);
    }
    for (int k = 0; k < rest; ++k) {
      x[i + k] = tail[k];
      partial[k] += tail[k];
    }
  }
  return SumOf16(partial);
}

float ExpAndSumImpl(float* x, int32_t count) {
  return ExpAndSumFrom(x, count, MaximumOf(x, count), [](int32_t) {});
}

constexpr int32_t kNearFloats = 1 << 13;  // of expanded values: two thirds of a core's first cache

// kTile queries' sums over rows [begin, end) of weight * value, in their order; from `begin` 0 on they are added to
// what is there. load(i, channel): values of row i from a channel on, one for each lane.
template <int kTile, typename Load>
HWY_INLINE void WeightedValues(int32_t begin, int32_t end, int head_dim, const float* weight, const Load& load,
                               float* const* out) {
  const D d;
  auto columns = [&](int first, auto vectors) {
    constexpr int kVectors = decltype(vectors)::value;
    V sum[kTile][kVectors];
    for (int j = 0; j < kTile; ++j) {
      for (int v = 0; v < kVectors; ++v) {
        sum[j][v] = begin == 0 ? hn::Zero(d) : hn::LoadU(d, out[j] + first + v * kLanes);
      }
    }
    for (int32_t i = begin; i < end; ++i) {
      V value[kVectors];
      for (int v = 0; v < kVectors; ++v) value[v] = load(i, first + v * kLanes);
      for (int j = 0; j < kTile; ++j) {
        const V factor = hn::Set(d, weight[j * kPartRows + i]);
        for (int v = 0; v < kVectors; ++v) sum[j][v] = hn::MulAdd(factor, value[v], sum[j][v]);
      }
    }
    for (int j = 0; j < kTile; ++j) {
      for (int v = 0; v < kVectors; ++v) hn::StoreU(sum[j][v], d, out[j] + first + v * kLanes);
    }
  };
  constexpr int kVectors = VectorsOf(kTile);
  int first = 0;
  for (; first + kVectors * kLanes <= head_dim; first += kVectors * kLanes) {
    columns(first, std::integral_constant<int, kVectors>());
  }
  for (; first < head_dim; first += kLanes) columns(first, std::integral_constant<int, 1>());
}

// scale: of each row's values, where they are codes; null: they are numbers.
template <typename Load>
HWY_INLINE void WeightedValuesOfAll(const AttentionTask& task, int32_t begin, int32_t end, const float* weights,
                                    const float* scale, const Load& load, float* partial) {
  const D d;
  HWY_ALIGN float scaled[kQueryTile * kPartRows];
  for (int j = 0; j < task.queries; j += kQueryTile) {
    const int queries = task.queries - j < kQueryTile ? task.queries - j : kQueryTile;
    float* to[kQueryTile];
    for (int k = 0; k < queries; ++k) to[k] = partial + (j + k) * PartialFloats(task.head_dim);
    const float* weight = weights + j * kPartRows;
    if (scale != nullptr) {
      for (int k = 0; k < queries; ++k) {
        for (int32_t i = begin; i < end; i += kLanes) {
          const int at = k * kPartRows + i;
          hn::Store(hn::Mul(hn::LoadU(d, weight + at), hn::Load(d, scale + i)), d, scaled + at);
        }
      }
      weight = scaled;
    }
    ForTile<kQueryTile>(queries, [&](auto tile) {
      WeightedValues<decltype(tile)::value>(begin, end, task.head_dim, weight, load, to);
    });
  }
}

// Likewise, and all of one page. rows: how many there are.
HWY_INLINE bool IsPage(const int32_t* order, int32_t rows) {
  return rows >= kSlots && order[0] % kSlots == 0 && Beside(order);
}

// Where the values of a part's rows lie, and after them what is read next; and what is asked for with each row.
struct PartRows {
  const char* at[kPartRows + kRowsAhead];
  const char* of_ahead[kPartRows];  // where the task ReadsAhead
  const char* const* ahead;
  HWY_ALIGN float scale[kPartRows + kSlots];  // of int8 codes; 1 of numbers
  bool packed[kPartRows];
};

// Of rows first .. first + count; next: the page whose keys come then.
template <typename T, int kBits>
HWY_INLINE void FindRows(const AttentionTask& task, int32_t first, int32_t count, int32_t next, PartRows& rows) {
  const bool has_ahead = ReadsAhead(task);
  rows.ahead = has_ahead ? rows.of_ahead : rows.at + kRowsAhead;
  for (int32_t i = 0; i < count;) {
    const int32_t slot = task.order != nullptr ? task.order[first + i] : first + i;
    const int32_t row = slot % kSlots;
    int32_t run = 1;  // rows that lie side by side
    if (task.order == nullptr) {
      run = count - i < kSlots ? count - i : kSlots;
    } else if (IsPage(task.order + first + i, count - i)) {
      run = kSlots;
    } else {
      while (row + run < kSlots && i + run < count && task.order[first + i + run] == slot + run) ++run;
    }
    const auto* page = static_cast<const char*>(task.pages[slot / kSlots]);
    const int half = kBits != 0 ? task.halves[slot / kSlots] : 0;
    int64_t row_bytes = task.head_dim * sizeof(T);
    const char* values = page + (kSlots + row) * row_bytes;
    if constexpr (kBits != 0) {
      if (half != 0) {
        const int in_page = (half - 1) * kSlots + row;
        row_bytes = task.head_dim * kBits / 8;
        values = page + task.packed_layout->value_codes + in_page * row_bytes;
        if constexpr (kBits == 8) {
          LoadHalves(reinterpret_cast<const uint8_t*>(page) + task.packed_layout->value_scales + in_page * 2, run,
                     rows.scale + i);
        }
      }
    }
    const char* ahead = has_ahead ? LinesAhead(task, run * row_bytes, values) : nullptr;
    for (int32_t k = 0; k < run; ++k) {
      rows.at[i + k] = values + k * row_bytes;
      if (has_ahead) rows.of_ahead[i + k] = ahead + k * row_bytes;
      if constexpr (kBits != 0) rows.packed[i + k] = half != 0;
      if (kBits == 8 && half == 0) rows.scale[i + k] = 1;
    }
    i += run;
  }
  if constexpr (kBits == 8) {
    for (int32_t i = count; i < kPartRows; ++i) rows.scale[i] = 1;
  }
  const auto pages = static_cast<int32_t>(SlotFloats(task.slots) / kSlots);
  for (int32_t i = 0; i < kRowsAhead && !has_ahead; i += kSlots) {
    const int32_t page = next + i / kSlots;
    const char* keys = page < pages ? KeysOf<kBits>(task, page) : nullptr;
    if (keys != nullptr) PrefetchRanges<kBits>(task, page);
    int64_t row_bytes =
        task.head_dim * (kBits != 0 && keys != nullptr && task.halves[page] != 0 ? kBits / 8.0 : sizeof(T));
    if (keys == nullptr) {
      keys = rows.at[count - 1];
      row_bytes = 0;
    }
    for (int k = 0; k < kSlots; ++k) rows.at[count + i + k] = keys + k * row_bytes;
  }
}

// Scores in the places of the part's weights [queries][kPartRows] become weights exp(score - maximum), their sums and
// maxima and the weighted values go to `partial`.
template <typename T, int kBits>
void FoldPart(const AttentionTask& task, int32_t part, int32_t next, float* weights, float* values, float* partial) {
  const D d;
  const int head_dim = task.head_dim;
  const int32_t first = part * kPartRows;
  const int32_t rows = task.rows - first < kPartRows ? task.rows - first : kPartRows;
  auto seen = [&](int j) {
    const int32_t visible = task.visible[j] - first;
    return visible < 0 ? 0 : visible > rows ? rows : visible;
  };
  int32_t most = 0;  // rows that some query sees
  for (int j = 0; j < task.queries; ++j) most = seen(j) > most ? seen(j) : most;
  PartRows place;
  if (most > 0 && task.out != nullptr) FindRows<T, kBits>(task, first, most, next, place);
  for (int32_t i = 0; i < task.hole_count && kBits == 0; ++i) {
    const int32_t row = task.holes[i] - first;
    if (row < 0 || row >= most) continue;
    // What was there last counts for nothing, be it no number.
    alignas(64) static constexpr char kNothing[kMaxHeadDim * sizeof(float)] = {};
    place.at[row] = kNothing;
    for (int j = 0; j < task.queries; ++j) weights[j * kPartRows + row] = -hwy::HighestValue<float>();
  }
  const bool few = task.queries < kConvertQueries;
  const int64_t row_bytes = kBits == 0 ? head_dim * sizeof(T) : head_dim * kBits / 8;
  int32_t asked = few && !ReadsAhead(task) && task.out != nullptr ? 0 : kRowsAhead;  // rows
  const int32_t ask = (kRowsAhead + task.queries * kSlots - 1) / (task.queries * kSlots);
  auto meanwhile = [&](int32_t) {
    for (const int32_t end = asked + ask; asked < end && asked < most && asked < kRowsAhead; ++asked) {
      PrefetchLines(place.at[asked], row_bytes);
    }
  };
  for (int j = 0; j < task.queries; ++j) {
    float* weight = weights + j * kPartRows;
    const int32_t visible = seen(j);
    float* ends = partial + j * PartialFloats(head_dim) + head_dim;
    ends[0] = visible > 0 ? MaximumOf(weight, visible) : -hwy::HighestValue<float>();
    ends[1] = visible > 0 ? ExpAndSumFrom(weight, visible, ends[0], meanwhile) : 0.0f;
    for (int32_t i = visible; i < rows; ++i) weight[i] = 0;  // a zero weight leaves a sum as it is, bit for bit
  }
  if (task.out == nullptr) return;

  const float* scale = kBits == 8 ? place.scale : nullptr;
  auto numbers = [&](int32_t i, int c)
                     TIDEPOOL_INLINED { return LoadElements(d, reinterpret_cast<const T*>(place.at[i]) + c); };
  if (few && (kBits == 0 || kBits == 8)) {
    constexpr int kOfLine = kLine / sizeof(T);
    auto load = [&](int32_t i, int c) TIDEPOOL_INLINED {
      if constexpr (kBits == 8) {
        if (place.packed[i]) {
          if (c % kLine == 0) AskForLine(place.ahead[i] + c);
          return LoadCodes<8>(reinterpret_cast<const uint8_t*>(place.at[i]) + c, 0);
        }
      }
      if (c % kOfLine == 0) AskForLine(place.ahead[i] + c * sizeof(T));
      return numbers(i, c);
    };
    WeightedValuesOfAll(task, 0, most, weights, scale, load, partial);
    return;
  }
  if (kBits == 0 && std::is_same_v<T, float>) {
    WeightedValuesOfAll(task, 0, most, weights, scale, numbers, partial);
    return;
  }
  auto expand = [&](int32_t i, float* to) {
    if constexpr (kBits == 8) {
      if (place.packed[i]) {
        const auto* codes = reinterpret_cast<const uint8_t*>(place.at[i]);
        for (int c = 0; c < head_dim; c += kLanes) hn::StoreU(LoadCodes<8>(codes + c, 0), d, to + c);
        return;
      }
    } else if constexpr (kBits != 0) {
      if (place.packed[i]) {
        const int32_t slot = task.order != nullptr ? task.order[first + i] : first + i;
        const PackedValues<kBits> packed(task, static_cast<const uint8_t*>(task.pages[slot / kSlots]),
                                         (task.halves[slot / kSlots] - 1) * kSlots + slot % kSlots);
        for (int c = 0; c < head_dim; c += kLanes) hn::StoreU(packed.Load(c), d, to + c);
        return;
      }
    }
    for (int c = 0; c < head_dim; c += kLanes) hn::StoreU(numbers(i, c), d, to + c);
  };
  // No more rows at a time than stay near until all queries have gone through them.
  const int32_t near = kNearFloats / head_dim / kSlots * kSlots;
  for (int32_t begin = 0; begin < most; begin += near) {
    const int32_t end = most - begin < near ? most : begin + near;
    for (int32_t i = begin; i < end; ++i) {
      if (few) PrefetchLines(place.ahead[i], row_bytes);
      expand(i, values + int64_t{i - begin} * head_dim);
    }
    WeightedValuesOfAll(
        task, begin, end, weights, scale,
        [&](int32_t i, int c) TIDEPOOL_INLINED { return hn::LoadU(D(), values + int64_t{i - begin} * head_dim + c); },
        partial);
  }
}

// One more part into the sums of what came before it.
void MergePart(const AttentionTask& task, bool first, const float* partial, float* sums) {
  const D d;
  const int head_dim = task.head_dim;
  const int64_t floats = PartialFloats(head_dim);
  if (task.comparison != nullptr && (first || partial[head_dim + 2] > sums[head_dim + 2])) {
    sums[head_dim + 2] = partial[head_dim + 2];
    sums[head_dim + 3] = partial[head_dim + 3];
  }
  for (int j = 0; j < task.queries; ++j, partial += floats, sums += floats) {
    if (first) {
      for (int c = 0; c < head_dim; c += kLanes) hn::StoreU(hn::LoadU(d, partial + c), d, sums + c);
      sums[head_dim] = partial[head_dim];
      sums[head_dim + 1] = partial[head_dim + 1];
      continue;
    }
    if (partial[head_dim + 1] == 0) continue;  // sees nothing of it
    const float before = sums[head_dim], now = partial[head_dim], most = before > now ? before : now;
    const V old_factor = Exponential(d, hn::Set(d, before - most)), new_factor = Exponential(d, hn::Set(d, now - most));
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

void MergePartsImpl(const AttentionTask& task, const float* partials, float* scores, float* sums) {
  const int64_t floats = task.queries * PartialFloats(task.head_dim);
  for (int32_t part = 0; part < PartsOf(task.rows); ++part) MergePart(task, part == 0, partials + part * floats, sums);
  if (task.comparison != nullptr) TellNearest(task, scores, sums);
  if (task.out != nullptr) DivideSums(task, sums);
}

// weights[j * kPartRows + i] = scores[j * stride + order[i]].
void GatherScores(int queries, const int32_t* order, int32_t count, const float* scores, int64_t stride,
                  float* weights) {
  const D d;
  const hn::RebindToSigned<D> di;
  for (int32_t i = 0; i < count; i += kSlots, order += kSlots) {
    const bool whole = count - i >= kSlots, beside = whole && Beside(order);
    for (int j = 0; j < queries; ++j) {
      const float* from = scores + j * stride;
      float* to = weights + j * kPartRows + i;
      for (int k = 0; k < kSlots && whole; k += kLanes) {
        const V of_order =
            beside ? hn::LoadU(d, from + order[0] + k) : hn::GatherIndex(d, from, hn::LoadU(di, order + k));
        hn::StoreU(of_order, d, to + k);
      }
      for (int k = 0; k < count - i && !whole; ++k) to[k] = from[order[k]];
    }
  }
}

// The scores of a part that IsLocal, from its own pages only. cosines: of its rows; null: not wanted.
template <typename T, int kBits>
void ScoreLocally(const AttentionTask& task, const int32_t* order, int32_t count, int32_t next, float* weights,
                  float* cosines, float* rows) {
  const void* pages[kLocalPages + kPagesAhead];
  uint8_t halves[kLocalPages + kPagesAhead];
  int32_t places[kPartRows];  // in scores of these pages
  int32_t found = 0;
  auto add = [&](int32_t page) {
    pages[found] = task.pages[page];
    halves[found++] = kBits != 0 ? task.halves[page] : 0;
  };
  uint32_t last = UINT32_MAX;
  for (int32_t i = 0; i < count;) {
    const auto slot = static_cast<uint32_t>(order[i]);
    if (slot / kSlots != last) add(static_cast<int32_t>(last = slot / kSlots));
    const int32_t first = (found - 1) * kSlots + static_cast<int32_t>(slot % kSlots);
    if (IsPage(order + i, count - i)) {
      const hn::RebindToSigned<D> di;
      for (int k = 0; k < kSlots; k += kLanes) hn::StoreU(LanesFrom(di, first + k), di, places + i + k);
      i += kSlots;
    } else {
      places[i++] = first;
    }
  }
  const int32_t own = found;
  const auto pages_end = static_cast<int32_t>(SlotFloats(task.slots) / kSlots);
  for (int32_t page = next; page < pages_end && page < next + kPagesAhead; ++page) add(page);
  AttentionTask local = task;
  local.pages = pages;
  local.halves = task.halves != nullptr ? halves : nullptr;
  local.slots = found * kSlots;
  constexpr int64_t kStride = int64_t{kLocalPages} * kSlots;
  float* scores = rows + int64_t{kTogether} * kSlots * task.head_dim;  // behind what is expanded
  HWY_ALIGN float by_place[kStride];
  ScorePages<T, kBits>(local, 0, own, own, scores, kStride, cosines != nullptr ? by_place : nullptr, rows);
  GatherScores(task.queries, places, count, scores, kStride, weights);
  if (cosines != nullptr) GatherScores(1, places, count, by_place, 0, cosines);
}

// next: the page whose keys are read after this. `rows`: kPartRows * head_dim floats.
template <typename T, int kBits>
void AttendPart(const AttentionTask& task, int32_t part, int32_t next, const float* scores, float* weights, float* rows,
                float* partial) {
  const int32_t first = part * kPartRows, end = task.rows - first < kPartRows ? task.rows : first + kPartRows;
  auto prefetch = [&](const float* by_slot) {  // they are far, and needed when all parts are done: each asks for some
    const int64_t pages = SlotFloats(task.slots) / kSlots, parts = PartsOf(task.rows);
    for (int64_t page = pages * part / parts; page < pages * (part + 1) / parts; ++page) {
      __builtin_prefetch(by_slot + page * kSlots);
    }
  };
  for (int j = 0; j < task.queries && task.column_sums != nullptr && task.queries <= kSumTile; ++j) {
    prefetch(task.column_sums[j]);
  }
  if (task.sums != nullptr) prefetch(task.sums);
  HWY_ALIGN float of_rows[kPartRows];
  float* cosines = kBits == 0 && task.comparison != nullptr ? of_rows : nullptr;
  if (task.order == nullptr) {
    ScorePages<T, kBits>(task, first / kSlots, (end + kSlots - 1) / kSlots, next, weights, kPartRows, cosines, rows);
    next += kPagesAhead;
  } else if (scores == nullptr) {
    ScoreLocally<T, kBits>(task, task.order + first, end - first, next, weights, cosines, rows);
    next += kPagesAhead;
  } else {
    const int64_t slots = SlotFloats(task.slots);
    GatherScores(task.queries, task.order + first, end - first, scores, slots, weights);
    cosines = nullptr;  // the nearest of all rows is found at once, where they need not be gathered
  }
  if (cosines != nullptr) FindNearest(task, part, end - first, cosines, partial);
  FoldPart<T, kBits>(task, part, next, weights, rows, partial);
}

// scores: [ScoreRows][SlotFloats].
template <typename T, int kBits>
void ScoreBySlot(const AttentionTask& task, int32_t first, int32_t end, float* scores, float* rows) {
  const int64_t slots = SlotFloats(task.slots);
  scores += int64_t{first} * kSlots;
  ScorePages<T, kBits>(task, first, end, end, scores, slots,
                       task.comparison != nullptr ? scores + task.queries * slots : nullptr, rows);
}

template <typename T, int kBits>
void AttendAll(const AttentionTask& task, float* scratch) {
  const bool keep = task.keeps_weights();
  const int32_t parts = PartsOf(task.rows);
  const AttentionScratch at = ScratchOf(task);
  const int64_t floats = task.queries * PartialFloats(task.head_dim), weight_floats = int64_t{task.queries} * kPartRows;
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
        ScoreBySlot<T, kBits>(task, scored, end, scratch + at.scores, scratch + at.rows);
        scored = end;
      }
    }
    // Weights that nobody wants, and sums that are merged at once, stay in one place.
    float* partial = partials + (keep ? part * floats : 0);
    float* of_part = weights + (keep ? part * weight_floats : 0);
    const int32_t next = task.order != nullptr ? scored + kPagesAhead : (part + 1) * (kPartRows / kSlots);
    AttendPart<T, kBits>(task, part, next, scratch + at.scores, of_part, scratch + at.rows, partial);
    MergePart(task, part == 0, partial, sums);
  }
  for (int32_t part = 0; part < parts && keep; ++part) {
    GivePartImpl(task, part, weights + part * weight_floats, partials + part * floats, sums);
  }
  if (task.comparison != nullptr) TellNearest(task, task.order != nullptr ? scratch + at.scores : nullptr, sums);
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
  WithBits(task, [&](auto bits) { ScoreBySlot<T, bits>(task, first, end, scores, scratch); });
}

template <typename T>
void AttendPartImpl(const AttentionTask& task, int32_t part, int32_t next, const float* scores, float* weights,
                    float* partial, float* scratch) {
  float* rows = scratch + int64_t{task.queries} * kPartRows;
  if (weights == nullptr) weights = scratch;
  WithBits(task, [&](auto bits) { AttendPart<T, bits>(task, part, next, scores, weights, rows, partial); });
}

}  // namespace

extern const AttentionKernels kAttentionKernels;
const AttentionKernels kAttentionKernels = {
    {AttendImpl<hwy::float16_t>, ScorePagesImpl<hwy::float16_t>, AttendPartImpl<hwy::float16_t>},
    {AttendImpl<float>, ScorePagesImpl<float>, AttendPartImpl<float>},
    MergePartsImpl,
    GivePartImpl,
    ExpAndSumImpl,
    half::FromFloat,
    half::ToFloat};

}  // namespace tidepool::TIDEPOOL_ISA
