// Compiled once for each instruction set: see worker/kernels/CMakeLists.txt.
#include <limits>

#include "hwy/highway.h"
#include "worker/kernels/cpu/attention_elements.h"
#include "worker/kernels/cpu/largest_cosine.h"
#include "worker/kernels/cpu/leaving_row.h"

namespace tidepool::TIDEPOOL_ISA {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

template <typename T>
void Cosines(const KeysTask& task, float* cosines) {
  const D d;
  constexpr int kVectors = kLanes == kSlots ? 8 : 4;  // sums that do not wait for each other
  const T* keys[kVectors];
  float* to[kVectors];
  int count = 0;
  auto compare = [&] {
    CosinesOf<kVectors>(
        task.head_dim, task.vector, task.length,
        [&](int v, int c) TIDEPOOL_INLINED { return LoadElements(d, keys[v] + c * kSlots); },
        [&](int v, V of_keys) TIDEPOOL_INLINED { hn::StoreU(of_keys, d, to[v]); });
    count = 0;
  };
  for (int32_t slot = 0; slot < task.slots; slot += kLanes) {
    if (task.pages[slot / kSlots] == nullptr) {
      hn::StoreU(hn::Set(d, -kInfinity), d, cosines + slot);
      continue;
    }
    keys[count] = static_cast<const T*>(task.pages[slot / kSlots]) + slot % kSlots;
    to[count++] = cosines + slot;
    if (count == kVectors) compare();
  }
  if (count == 0) return;
  for (int v = count; v < kVectors; ++v) {  // some twice take no longer than each by itself
    keys[v] = keys[count - 1];
    to[v] = to[count - 1];
  }
  compare();
}

}  // namespace

extern const LeavingRowKernels kLeavingRowKernels;
const LeavingRowKernels kLeavingRowKernels = {Cosines<hwy::float16_t>, Cosines<float>, LargestOf};

}  // namespace tidepool::TIDEPOOL_ISA
