// Compiled once for each instruction set: see worker/kernels/CMakeLists.txt.
#include <limits>

#include "hwy/highway.h"
#include "worker/kernels/cpu/attention_elements.h"
#include "worker/kernels/cpu/largest_cosine.h"
#include "worker/kernels/cpu/leaving_row.h"

namespace tidepool::TIDEPOOL_ISA {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// By slot, not by row: sums that lie side by side need not be gathered.
LeastSum FindLeastSum(const LeastSumTask& task) {
  const D d;
  const hn::RebindToSigned<D> di;
  const V divisor = hn::Set(d, task.divisor), lowest = hn::Set(d, -kInfinity);
  const auto before = hn::Set(di, task.first - 1), end = hn::Set(di, task.end);
  V least = hn::Set(d, kInfinity), others = least;
  auto position = hn::Set(di, -1), slot = position;  // of the least
  for (int32_t i = 0; i < task.slots; i += kLanes) {
    V score = hn::Zero(d);
    for (int32_t a = 0; a < task.arrays; ++a) {
      const V sum = hn::LoadU(d, task.sums[a] + i);
      score = task.largest ? hn::IfThenElse(hn::Lt(score, sum), sum, score) : hn::Add(score, sum);
    }
    score = hn::Div(score, divisor);
    score = hn::IfThenElse(hn::IsNaN(score), lowest, score);
    const auto at = hn::LoadU(di, task.positions + i);
    const auto asked = hn::RebindMask(d, hn::And(hn::Gt(at, before), hn::Lt(at, end)));
    const auto later = hn::RebindMask(d, hn::Gt(at, position));
    const auto lower = hn::And(asked, hn::Or(hn::Lt(score, least), hn::And(hn::Eq(score, least), later)));
    others = hn::IfThenElse(lower, least, hn::IfThenElse(asked, hn::Min(others, score), others));
    least = hn::IfThenElse(lower, score, least);
    position = hn::IfThenElse(hn::RebindMask(di, lower), at, position);
    slot = hn::IfThenElse(hn::RebindMask(di, lower), hn::Iota(di, i), slot);
  }
  HWY_ALIGN float scores[kLanes];
  HWY_ALIGN int32_t positions[kLanes], slots[kLanes];
  hn::Store(least, d, scores);
  hn::Store(position, di, positions);
  hn::Store(slot, di, slots);
  int best = 0;
  for (int lane = 1; lane < kLanes; ++lane) {
    if (scores[lane] < scores[best] || (scores[lane] == scores[best] && positions[lane] > positions[best])) best = lane;
  }
  LeastSum found = {.slot = slots[best], .others = hn::GetLane(hn::MinOfLanes(d, others))};
  for (int lane = 0; lane < kLanes; ++lane) {
    if (lane != best && scores[lane] < found.others) found.others = scores[lane];
  }
  return found;
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

}  // namespace

extern const LeavingRowKernels kLeavingRowKernels;
const LeavingRowKernels kLeavingRowKernels = {FindLeastSum, Cosines<hwy::float16_t>, Cosines<float>, LargestOf};

}  // namespace tidepool::TIDEPOOL_ISA
