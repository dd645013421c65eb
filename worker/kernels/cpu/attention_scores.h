// Scores of pages' keys. Included by attention_kernels.cc only, compiled with TIDEPOOL_ISA.
#ifndef TIDEPOOL_WORKER_KERNELS_CPU_ATTENTION_SCORES_H_
#define TIDEPOOL_WORKER_KERNELS_CPU_ATTENTION_SCORES_H_

#include <cstdint>
#include <type_traits>

#include "hwy/highway.h"
#include "worker/kernels/cpu/attention.h"
#include "worker/kernels/cpu/attention_elements.h"
#include "worker/kernels/cpu/attention_int8.h"

namespace tidepool::TIDEPOOL_ISA {
namespace {

// Queries that share one load of a key or value, and vectors that are worked on together: sums that do not wait for
// each other, as many as there are registers for.
constexpr int kQueryTile = kLanes == 8 ? 6 : 4;
constexpr int kTogether = kLanes == kSlots ? 4 : 2;
// For fewer queries than a tile there are registers for more.
constexpr int kFewQueries = 3;
constexpr int VectorsOf(int queries) { return kLanes == 8 && queries <= kFewQueries ? 4 : kTogether; }
constexpr int kConvertQueries = 8;  // from so many queries on keys and values are converted once for all

// Memory is slower than what is done with it, and the machine reads ahead too late, and only within a page. So with
// each line that is worked on one is asked for that is needed later, never many at once, which would have to wait: what
// the task's ReadAhead says or, where it has none, what comes so much later.
constexpr int kPagesAhead = 4;
constexpr int kRowsAhead = kPagesAhead * kSlots;
constexpr int kLine = ReadAhead::kLine;

// body(std::integral_constant<int, n>) for the next queries of a tile: `queries`, but no more than kMost.
template <int kMost, typename Body>
HWY_INLINE void ForTile(int queries, const Body& body) {
  if constexpr (kMost > 1) {
    if (queries < kMost) return ForTile<kMost - 1>(queries, body);
  }
  body(std::integral_constant<int, kMost>());
}

HWY_INLINE void PrefetchLines(const char* from, int64_t bytes) {
  for (int64_t line = 0; line < bytes; line += kLine) __builtin_prefetch(from + line);
}

HWY_INLINE bool ReadsAhead(const AttentionTask& task) {
  return task.ahead != nullptr && task.queries < kConvertQueries;
}

// What is to be asked for while so many bytes are read, of a task that ReadsAhead; `own`: where there is nothing.
HWY_INLINE const char* LinesAhead(const AttentionTask& task, int64_t bytes, const char* own) {
  const char* ahead = TakeLines(*task.ahead, static_cast<int32_t>(bytes / kLine));
  return ahead != nullptr ? ahead : own;
}

// Scores of kTile queries for kVectors vectors of slots; with kCompares the cosines of the task's comparison, too.
// load(v, c): channel c of the v-th.
template <int kTile, int kVectors, bool kCompares, typename Load>
HWY_INLINE void SlotScores(const AttentionTask& task, const Load& load, const float* const* q, float* const* scores,
                           float* cosines) {
  const D d;
  V sum[kTile][kVectors];
  for (int j = 0; j < kTile; ++j) {
    for (int v = 0; v < kVectors; ++v) sum[j][v] = hn::Zero(d);
  }
  V product[kVectors], square[kVectors];
  for (int v = 0; v < kVectors; ++v) product[v] = square[v] = hn::Zero(d);
  const float* compared = kCompares ? task.comparison->key : nullptr;
  for (int c = 0; c < task.head_dim; ++c) {
    V keys[kVectors];
    for (int v = 0; v < kVectors; ++v) keys[v] = load(v, c);
    for (int j = 0; j < kTile; ++j) {
      const V query = hn::Set(d, q[j][c]);
      for (int v = 0; v < kVectors; ++v) sum[j][v] = hn::MulAdd(query, keys[v], sum[j][v]);
    }
    if constexpr (kCompares) {
      const V of_channel = hn::Set(d, compared[c]);
      for (int v = 0; v < kVectors; ++v) {
        product[v] = hn::MulAdd(of_channel, keys[v], product[v]);
        square[v] = hn::MulAdd(keys[v], keys[v], square[v]);
      }
    }
  }
  for (int j = 0; j < kTile; ++j) {
    for (int v = 0; v < kVectors; ++v) {
      hn::StoreU(hn::Mul(sum[j][v], hn::Set(d, task.scale)), d, scores[j] + v * kLanes);
    }
  }
  if constexpr (kCompares) {
    for (int v = 0; v < kVectors; ++v) {
      hn::StoreU(Cosine(product[v], task.comparison->length, square[v]), d, cosines + v * kLanes);
    }
  }
}

// Whole pages, keys and values, that are asked for into the second cache while others are worked on: a share of them
// with each few queries.
struct PagesAhead {
  const char* const* pages = nullptr;
  int count = 0;
  int64_t page_bytes = 0;

  HWY_INLINE void Ask(int query, int queries) const {
    if (count == 0) return;
    const int64_t lines = page_bytes / kLine;
    const int64_t tile = query / kQueryTile, tiles = (queries + kQueryTile - 1) / kQueryTile;
    for (int64_t line = lines * tile / tiles; line < lines * (tile + 1) / tiles; ++line) {
      for (int k = 0; k < count; ++k) AskForLine(pages[k] + line * kLine);
    }
  }
};

// cosines: of a comparison; null: none, and so without kMayCompare.
template <int kVectors, bool kMayCompare, typename Load>
HWY_INLINE void SlotScoresOfAll(const AttentionTask& task, const Load& load, const PagesAhead& later, float* scores,
                                int64_t stride, float* cosines) {
  constexpr int kMost = kVectors > kTogether ? kFewQueries : kQueryTile;
  for (int j = 0; j < task.queries; j += kMost) {
    later.Ask(j, task.queries);
    float* to[kMost];
    for (int k = 0; k < kMost; ++k) to[k] = scores + (j + k) * stride;
    auto tile = [&](auto queries) {
      constexpr int kTile = decltype(queries)::value;
      if (kMayCompare && cosines != nullptr && j == 0) {
        SlotScores<kTile, kVectors, kMayCompare>(task, load, task.q + j, to, cosines);
      } else {
        SlotScores<kTile, kVectors, false>(task, load, task.q + j, to, nullptr);
      }
    };
    ForTile<kMost>(task.queries - j, tile);
  }
}

// Of whole pages, a channel's keys kStride apart. ahead: what is asked for while these are worked on, as much of each;
// null without kAhead.
template <int kPages, int kStride, bool kAhead, bool kMayCompare, typename K>
HWY_INLINE void PageScores(const AttentionTask& task, const K* const* pages, const char* const* ahead,
                           const PagesAhead& later, float* scores, int64_t stride, float* cosines) {
  const D d;
  constexpr int kChannels = kLine / (kSlots * sizeof(K));  // of a line
  if constexpr (kLanes == kSlots) {
    auto load = [&](int v, int c) TIDEPOOL_INLINED {
      if (kAhead && c % kChannels == v % kChannels) AskForLine(ahead[v] + c / kChannels * kLine);
      return LoadElements(d, pages[v] + c * kStride);
    };
    SlotScoresOfAll<kPages, kMayCompare>(task, load, later, scores, stride, cosines);
  } else if constexpr (kPages > 1) {
    constexpr int kOfPage = kSlots / kLanes;  // vectors
    auto load = [&](int v, int c) TIDEPOOL_INLINED {
      const int page = v / kOfPage;
      if (kAhead && v % kOfPage == 0 && c % kChannels == 0) AskForLine(ahead[page] + c / kChannels * kLine);
      return LoadElements(d, pages[page] + v % kOfPage * kLanes + c * kStride);
    };
    SlotScoresOfAll<kPages * kOfPage, false>(task, load, later, scores, stride, nullptr);
    // There are no registers for these, too; and the keys are near now.
    if (kMayCompare && cosines != nullptr) {
      CosinesOf<kPages * kOfPage>(
          task.head_dim, task.comparison->key, task.comparison->length,
          [&](int v, int c)
              TIDEPOOL_INLINED { return LoadElements(d, pages[v / kOfPage] + v % kOfPage * kLanes + c * kStride); },
          [&](int v, V of_keys) TIDEPOOL_INLINED { hn::StoreU(of_keys, d, cosines + v * kLanes); });
    }
  } else {
    for (int part = 0; part < kSlots; part += kTogether * kLanes) {
      const K* key = pages[0] + part;
      auto load = [&](int v, int c) TIDEPOOL_INLINED {
        if (kAhead && v == 0 && part == 0 && c % kChannels == 0) AskForLine(ahead[0] + c / kChannels * kLine);
        return LoadElements(d, key + v * kLanes + c * kStride);
      };
      SlotScoresOfAll<kTogether, kMayCompare>(task, load, part == 0 ? later : PagesAhead(), scores + part, stride,
                                              cosines == nullptr ? nullptr : cosines + part);
    }
  }
}

// The keys of a page, or of half of a packed page; null: no row lies there.
template <int kBits>
HWY_INLINE const char* KeysOf(const AttentionTask& task, int32_t page) {
  const auto* keys = static_cast<const char*>(task.pages[page]);
  if (kBits == 0 || keys == nullptr || task.halves[page] == 0) return keys;
  return keys + task.packed_layout->key_codes + int64_t{task.halves[page] - 1} * task.head_dim * 2 * kBits;
}

// Of a packed page, what comes before its codes, with its first half.
template <int kBits>
HWY_INLINE void PrefetchRanges(const AttentionTask& task, int32_t page) {
  if (kBits == 0 || task.halves[page] != 1) return;
  PrefetchLines(static_cast<const char*>(task.pages[page]), static_cast<int64_t>(task.packed_layout->key_codes));
}

// Of pages [first, end). next: the page whose keys are read after those. cosines: of a comparison, null: not wanted.
template <typename T, int kBits>
void ScorePages(const AttentionTask& task, int32_t first, int32_t end, int32_t next, float* scores, int64_t stride,
                float* cosines, float* keys) {
  const D d;
  constexpr int kPages = kLanes == kSlots ? kTogether : kLanes * VectorsOf(1) > kSlots ? 2 : 1;  // together
  constexpr bool kMayCompare = kBits == 0;
  const bool few = task.queries < kConvertQueries;
  const bool all = kLanes == kSlots || task.queries <= kFewQueries;  // of kPages
  const bool convert = !std::is_same_v<T, float> && !few;
#if TIDEPOOL_INT8_DOTS
  if (kBits == 8 && task.queries > kRoundedQueries) {
    for (int32_t j = 0; j < task.queries; j += kRoundedQueries) {
      AttentionTask some = task;
      some.q += j;
      some.queries = task.queries - j < kRoundedQueries ? task.queries - j : kRoundedQueries;
      ScorePages<T, kBits>(some, first, end, next, scores + j * stride, stride, nullptr, keys);
    }
    return;
  }
  RoundedQueries rounded;  // once a page is packed
  bool is_rounded = false;
#endif
  const int64_t elements = int64_t{task.head_dim} * kSlots;
  const auto pages_end = static_cast<int32_t>(SlotFloats(task.slots) / kSlots);
  auto packed = [&](int32_t p) { return kBits != 0 && task.halves[p] != 0; };
  // With p's keys: what the ReadAhead says, else those that are read kPagesAhead pages later; there may be none.
  auto ahead_of = [&](int32_t p) {
    if (ReadsAhead(task)) {
      return LinesAhead(task, elements * (packed(p) ? kBits : 8 * sizeof(T)) / 8, KeysOf<kBits>(task, p));
    }
    const int32_t later = p + kPagesAhead < end ? p + kPagesAhead : p + kPagesAhead - end + next;
    const char* ahead = later < pages_end ? KeysOf<kBits>(task, later) : nullptr;
    if (ahead == nullptr) return KeysOf<kBits>(task, p);
    if (few) PrefetchRanges<kBits>(task, later);
    return ahead;
  };
  for (int32_t p = first; p < end;) {
    if (task.pages[p] == nullptr) {
      ++p;
      continue;
    }
    float* to = scores + int64_t{p - first} * kSlots;
    float* cosines_to = kMayCompare && cosines != nullptr ? cosines + int64_t{p - first} * kSlots : nullptr;
    int together = 0;
    const bool of_packed = packed(p);
    while (together < kPages && p + together < end && task.pages[p + together] != nullptr &&
           packed(p + together) == of_packed) {
      ++together;
    }
    constexpr int kPacked = kBits == 8 && TIDEPOOL_INT8_DOTS ? 2 : 1;  // halves together
    together = of_packed ? together < kPacked ? 1 : kPacked : together < kPages || !all ? 1 : kPages;
    const char* ahead[kPages];
    for (int k = 0; k < together; ++k) ahead[k] = ahead_of(p + k);
    p += together;
    const void* const* pages = task.pages + (p - together);
#if TIDEPOOL_INT8_DOTS
    if (kBits == 8 && of_packed) {
      if (!is_rounded) RoundQueries(task, rounded);
      is_rounded = true;
      const uint8_t* halves = task.halves + (p - together);
      if (together == kPacked) {
        Int8PageScores<kPacked>(task, rounded, pages, halves, ahead, to, stride);
      } else {
        Int8PageScores<1>(task, rounded, pages, halves, ahead, to, stride);
      }
      continue;
    }
#endif
    if (convert || of_packed) {
      const float* converted[kPages];
      // Those of a channel side by side.
      const int64_t stride_of_channel = together * kSlots;
      for (int k = 0; k < together; ++k) {
        float* expanded = keys + k * kSlots;
        converted[k] = expanded;
        if (of_packed) {
          const auto* page = static_cast<const uint8_t*>(pages[0]);
          if (few) PrefetchLines(ahead[0], elements * CodeBits(task.packed) / 8);
          UnpackKeys<kBits == 0 ? 8 : kBits>(task, page, task.halves[p - 1] - 1, keys);
        } else {
          const T* page = static_cast<const T*>(pages[k]);
          for (int c = 0; c < task.head_dim; ++c, page += kSlots, expanded += stride_of_channel) {
            for (int i = 0; i < kSlots; i += kLanes) hn::StoreU(LoadElements(d, page + i), d, expanded + i);
          }
        }
      }
      PagesAhead later;
      if (!of_packed) later = {ahead, together, 2 * elements * static_cast<int64_t>(sizeof(T))};
      if (together == kPages) {
        PageScores<kPages, kPages * kSlots, false, kMayCompare>(task, converted, nullptr, later, to, stride,
                                                                cosines_to);
      } else {
        PageScores<1, kSlots, false, kMayCompare>(task, converted, nullptr, later, to, stride, cosines_to);
      }
      continue;
    }
    const T* keys_of[kPages];
    for (int k = 0; k < together; ++k) keys_of[k] = static_cast<const T*>(pages[k]);
    if (together == kPages) {
      PageScores<kPages, kSlots, true, kMayCompare>(task, keys_of, ahead, PagesAhead(), to, stride, cosines_to);
    } else {
      PageScores<1, kSlots, true, kMayCompare>(task, keys_of, ahead, PagesAhead(), to, stride, cosines_to);
    }
  }
}

}  // namespace
}  // namespace tidepool::TIDEPOOL_ISA

#endif  // TIDEPOOL_WORKER_KERNELS_CPU_ATTENTION_SCORES_H_
