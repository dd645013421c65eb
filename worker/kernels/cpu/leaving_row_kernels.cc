// Compiled once for each instruction set: see worker/kernels/CMakeLists.txt.
#include <limits>

#include "hwy/highway.h"
#include "worker/kernels/cpu/attention_elements.h"
#include "worker/kernels/cpu/leaving_row.h"

namespace tidepool::TIDEPOOL_ISA {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A score as it is compared.
HWY_INLINE float Rank(float score) { return score != score ? -kInfinity : score; }

HWY_INLINE float Lower(float a, float b) { return a < b ? a : b; }

LeastSum FindLeastSum(const LeastSumTask& task) {
  const D d;
  const hn::RebindToSigned<D> di;
  const V divisor = hn::Set(d, task.divisor), lowest = hn::Set(d, -kInfinity);
  V least = hn::Set(d, kInfinity), others = least;
  auto of_least = hn::Zero(di);
  int32_t i = 0;
  for (; i + kLanes <= task.rows; i += kLanes) {
    const int32_t first = task.order[i];
    const auto slots = hn::LoadU(di, task.order + i);
    const bool beside = hn::AllTrue(di, hn::Eq(slots, hn::Iota(di, first)));  // as most rows lie
    V score = hn::Zero(d);
    for (int32_t a = 0; a < task.arrays; ++a) {
      const V sum = beside ? hn::LoadU(d, task.sums[a] + first) : hn::GatherIndex(d, task.sums[a], slots);
      score = task.largest ? hn::IfThenElse(hn::Lt(score, sum), sum, score) : hn::Add(score, sum);
    }
    score = hn::Div(score, divisor);
    score = hn::IfThenElse(hn::IsNaN(score), lowest, score);
    const auto lower = hn::Le(score, least);
    others = hn::IfThenElse(lower, least, hn::Min(others, score));
    least = hn::IfThenElse(lower, score, least);
    of_least = hn::IfThenElse(hn::RebindMask(di, lower), hn::Iota(di, i), of_least);
  }
  float rank = kInfinity, of_others = kInfinity;
  int32_t row = 0;
  if (i > 0) {
    of_others = hn::GetLane(hn::MinOfLanes(d, others));
    HWY_ALIGN float ranks[kLanes];
    HWY_ALIGN int32_t rows[kLanes];
    hn::Store(least, d, ranks);
    hn::Store(of_least, di, rows);
    rank = ranks[0];
    row = rows[0];
    for (int lane = 1; lane < kLanes; ++lane) {
      of_others = Lower(of_others, ranks[lane] > rank ? ranks[lane] : rank);
      if (ranks[lane] > rank || (ranks[lane] == rank && rows[lane] < row)) continue;
      rank = ranks[lane];
      row = rows[lane];
    }
  }
  for (; i < task.rows; ++i) {
    const float other = Rank(SumScore(task, task.order[i]));
    of_others = Lower(of_others, other > rank ? other : rank);
    if (other > rank) continue;
    rank = other;
    row = i;
  }
  return {.row = row, .others = of_others};
}

// Of kVectors vectors of slots, keys[v] + c * kSlots has channel c of the v-th.
template <int kVectors, typename T>
HWY_INLINE void CosinesOf(const KeysTask& task, const T* const* keys, float* const* cosines) {
  const D d;
  V product[kVectors], square[kVectors];
  for (int v = 0; v < kVectors; ++v) product[v] = square[v] = hn::Zero(d);
  for (int c = 0; c < task.head_dim; ++c) {
    const V of_channel = hn::Set(d, task.vector[c]);
    for (int v = 0; v < kVectors; ++v) {
      const V key = LoadElements(d, keys[v] + c * kSlots);
      product[v] = hn::MulAdd(of_channel, key, product[v]);
      square[v] = hn::MulAdd(key, key, square[v]);
    }
  }
  for (int v = 0; v < kVectors; ++v) hn::StoreU(Cosine(product[v], task.length, square[v]), d, cosines[v]);
}

template <typename T>
void Cosines(const KeysTask& task, float* cosines) {
  const D d;
  constexpr int kVectors = kLanes == kSlots ? 8 : 4;  // sums that do not wait for each other
  const T* keys[kVectors];
  float* to[kVectors];
  int count = 0;
  for (int32_t slot = 0; slot < task.slots; slot += kLanes) {
    if (task.pages[slot / kSlots] == nullptr) {
      hn::StoreU(hn::Set(d, -kInfinity), d, cosines + slot);
      continue;
    }
    keys[count] = static_cast<const T*>(task.pages[slot / kSlots]) + slot % kSlots;
    to[count++] = cosines + slot;
    if (count < kVectors) continue;
    CosinesOf<kVectors>(task, keys, to);
    count = 0;
  }
  if (count == 0) return;
  for (int v = count; v < kVectors; ++v) {  // some twice take no longer than each by itself
    keys[v] = keys[count - 1];
    to[v] = to[count - 1];
  }
  CosinesOf<kVectors>(task, keys, to);
}

int32_t Largest(const float* cosines, int32_t slots, const int32_t* positions) {
  const D d;
  const V lowest = hn::Set(d, -kInfinity);
  V most = lowest;
  for (int32_t slot = 0; slot < slots; slot += kLanes) {
    const V cosine = hn::LoadU(d, cosines + slot);
    most = hn::Max(most, hn::IfThenElse(hn::IsNaN(cosine), lowest, cosine));
  }
  const float largest = hn::GetLane(hn::MaxOfLanes(d, most));
  if (largest == -kInfinity) return -1;
  int32_t best = -1;
  for (int32_t slot = 0; slot < slots; slot += kLanes) {
    if (hn::AllFalse(d, hn::Eq(hn::LoadU(d, cosines + slot), hn::Set(d, largest)))) continue;
    for (int32_t i = slot; i < slot + kLanes; ++i) {
      if (cosines[i] == largest && (best < 0 || positions[i] < positions[best])) best = i;
    }
  }
  return best;
}

}  // namespace

extern const LeavingRowKernels kLeavingRowKernels;
const LeavingRowKernels kLeavingRowKernels = {FindLeastSum, Cosines<hwy::float16_t>, Cosines<float>, Largest};

}  // namespace tidepool::TIDEPOOL_ISA
