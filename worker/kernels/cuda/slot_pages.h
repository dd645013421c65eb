// Slot pages in device memory, and which of them a head's rows lie in.
//
// A page (kPageSlots slots of one (layer, kv head)): K [kPageSlots][head_dim], then V likewise, halves. A row of K or V
// is one run of memory: a warp reads several rows in one load.
#ifndef TIDEPOOL_WORKER_KERNELS_CUDA_SLOT_PAGES_H_
#define TIDEPOOL_WORKER_KERNELS_CUDA_SLOT_PAGES_H_

#include <cstdint>

#include "worker/kernels/cuda/cta.h"

namespace tidepool::cuda {

inline constexpr int kSlotsOfPage = 16;

struct PageEntry {
  int32_t page = 0;
  uint32_t valid = 0;  // bit i: slot i holds a row
};

// Of one (sequence, layer, kv head): slot s lies in entries[s / kSlotsOfPage].
struct HeadPages {
  const PageEntry* entries = nullptr;
  int32_t pages = 0;
  int32_t unused = 0;
};

struct PageMemoryView {
  char* base = nullptr;
  int32_t head_dim = 0;

  TP_KERNEL uint16_t* Keys(int64_t page) const {
    return reinterpret_cast<uint16_t*>(base) + page * 2 * kSlotsOfPage * head_dim;
  }
  TP_KERNEL uint16_t* Values(int64_t page) const { return Keys(page) + kSlotsOfPage * head_dim; }
};

// Eight channels of a row as float32; zeros where it does not exist.
TP_KERNEL void LoadChannels(const uint16_t* row, bool exists, float (&out)[8]) {
  Words4 words = {};
  if (exists) words = LoadWords(row);
  for (int i = 0; i < 4; ++i) HalvesToFloats(words.w[i], &out[2 * i]);
}

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_WORKER_KERNELS_CUDA_SLOT_PAGES_H_
