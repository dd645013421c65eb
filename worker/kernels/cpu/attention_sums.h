// What policies want of attention beside its results: what each row received, and which row is like one that leaves.
// Included by attention_kernels.cc only, compiled with TIDEPOOL_ISA.
#ifndef TIDEPOOL_WORKER_KERNELS_CPU_ATTENTION_SUMS_H_
#define TIDEPOOL_WORKER_KERNELS_CPU_ATTENTION_SUMS_H_

#include <cstdint>
#include <limits>

#include "hwy/highway.h"
#include "worker/kernels/cpu/attention.h"
#include "worker/kernels/cpu/attention_elements.h"
#include "worker/kernels/cpu/attention_scores.h"
#include "worker/kernels/cpu/exponential.h"
#include "worker/kernels/cpu/largest_cosine.h"

namespace tidepool::TIDEPOOL_ISA {
namespace {

constexpr int kSumTile = 4;  // queries whose probabilities are added together

// Of kQueries queries, one after the other: columns[j][slot of row k] += weights[j][k - first] * factors[j].
// Most rows lie beside their neighbours.
template <int kQueries>
void AddToColumns(const float* weights, const float* factors, const int32_t* order, int32_t first, int32_t end,
                  float* const* columns) {
  const D d;
  for (int32_t k = first; k < end; k += kSlots, weights += kSlots) {
    const int32_t count = end - k < kSlots ? end - k : kSlots;
    const int32_t slot = order != nullptr ? order[k] : k;
    const bool beside = count == kSlots && (order == nullptr || Beside(order + k));
    for (int j = 0; j < kQueries; ++j) {
      const float* weight = weights + j * kPartRows;
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

// The same into one array, to which what all queries give a row is added at once.
template <int kQueries>
void AddToSums(const float* weights, const float* factors, const int32_t* order, int32_t first, int32_t end,
               float* sums) {
  const D d;
  for (int32_t k = first; k < end; k += kSlots, weights += kSlots) {
    const int32_t count = end - k < kSlots ? end - k : kSlots;
    const int32_t slot = order != nullptr ? order[k] : k;
    const bool beside = count == kSlots && (order == nullptr || Beside(order + k));
    HWY_ALIGN float shares[kSlots];
    for (int part = 0; part < kSlots; part += kLanes) {
      V share = hn::Mul(hn::LoadU(d, weights + part), hn::Set(d, factors[0]));
      for (int j = 1; j < kQueries; ++j) {
        share = hn::Add(share, hn::Mul(hn::LoadU(d, weights + j * kPartRows + part), hn::Set(d, factors[j])));
      }
      if (beside) {
        hn::StoreU(hn::Add(hn::LoadU(d, sums + slot + part), share), d, sums + slot + part);
      } else {
        hn::Store(share, d, shares + part);
      }
    }
    for (int32_t i = 0; i < count && !beside; ++i) sums[order != nullptr ? order[k + i] : k + i] += shares[i];
  }
}

// What the policies want of the attention of a part's rows, from its weights [queries][kPartRows], the maxima that they
// are relative to, and the sums of all parts.
void GivePartImpl(const AttentionTask& task, int32_t part, const float* weights, const float* partial,
                  const float* sums) {
  const D d;
  const int64_t floats = PartialFloats(task.head_dim);
  const int32_t first = part * kPartRows, end = task.rows - first < kPartRows ? task.rows : first + kPartRows;
  for (int j = 0; j < task.queries; j += kSumTile) {
    const int queries = task.queries - j < kSumTile ? task.queries - j : kSumTile;
    float factors[kSumTile];
    for (int i = 0; i < queries; ++i) {
      const float* ends = sums + (j + i) * floats + task.head_dim;
      const float most = partial[(j + i) * floats + task.head_dim];
      factors[i] = hn::GetLane(Exponential(d, hn::Set(d, most - ends[0]))) * (1.0f / ends[1]);
    }
    const float* of_queries = weights + j * kPartRows;
    if (task.column_sums != nullptr) {
      float* const* columns = task.column_sums + j;
      ForTile<kSumTile>(queries, [&](auto tile) {
        AddToColumns<decltype(tile)::value>(of_queries, factors, task.order, first, end, columns);
      });
    }
    if (task.sums != nullptr) {
      ForTile<kSumTile>(queries, [&](auto tile) {
        AddToSums<decltype(tile)::value>(of_queries, factors, task.order, first, end, task.sums);
      });
    }
    for (int i = 0; i < queries && task.probabilities != nullptr; ++i) {
      float* to = task.probabilities + (j + i) * task.probability_stride;
      for (int32_t k = first; k < end; ++k) to[k] = of_queries[i * kPartRows + k - first] * factors[i];
    }
  }
}

// Of a part's rows, whose cosines are given, the nearest to the key that is compared: to what its first query has.
void FindNearest(const AttentionTask& task, int32_t part, int32_t rows, float* cosines, float* partial) {
  const D d;
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  const int32_t first = part * kPartRows, own = task.comparison->row - first;
  if (own >= 0 && own < rows) cosines[own] = kNone;
  for (int32_t i = rows; i % kLanes != 0; ++i) cosines[i] = kNone;
  V most = hn::Set(d, kNone);
  for (int32_t i = 0; i < rows; i += kLanes) {
    const V cosine = hn::LoadU(d, cosines + i);
    most = hn::Max(most, hn::IfThenElse(hn::IsNaN(cosine), hn::Set(d, kNone), cosine));
  }
  const float largest = hn::GetLane(hn::MaxOfLanes(d, most));
  int32_t nearest = 0;
  while (largest > kNone && cosines[nearest] != largest) ++nearest;
  partial[task.head_dim + 2] = largest > kNone ? cosines[nearest] : kNone;
  partial[task.head_dim + 3] = static_cast<float>(first + nearest);  // numbers of rows are exact
}

// Of all parts. scores: by slot, where the parts did not look for it.
void TellNearest(const AttentionTask& task, float* scores, const float* sums) {
  KeyComparison& comparison = *task.comparison;
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  if (scores != nullptr) {
    const auto slots = static_cast<int32_t>(SlotFloats(task.slots));
    float* cosines = scores + int64_t{task.queries} * slots;
    cosines[task.order[comparison.row]] = kNone;
    for (int32_t i = 0; i < comparison.free_slots; ++i) cosines[comparison.free[i]] = kNone;
    comparison.nearest = LargestOf(cosines, slots, comparison.positions);
    comparison.cosine = comparison.nearest >= 0 ? cosines[comparison.nearest] : kNone;
    return;
  }
  comparison.cosine = sums[task.head_dim + 2];
  comparison.nearest = -1;
  if (comparison.cosine == kNone) return;
  const auto row = static_cast<int32_t>(sums[task.head_dim + 3]);
  comparison.nearest = task.order != nullptr ? task.order[row] : row;
}

}  // namespace
}  // namespace tidepool::TIDEPOOL_ISA

#endif  // TIDEPOOL_WORKER_KERNELS_CPU_ATTENTION_SUMS_H_
