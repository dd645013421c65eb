// Compiled once for each instruction set: see worker/kernels/CMakeLists.txt.
#include <limits>

#include "hwy/highway.h"
#include "worker/kernels/cpu/attention_elements.h"
#include "worker/kernels/cpu/largest_cosine.h"
#include "worker/kernels/cpu/leaving_row.h"

namespace tidepool::TIDEPOOL_ISA {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

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
const LeavingRowKernels kLeavingRowKernels = {Cosines<hwy::float16_t>, Cosines<float>, LargestOf};

}  // namespace tidepool::TIDEPOOL_ISA
