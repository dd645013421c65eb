// Rows out of slots, into slots, and what the device knows of them.
#ifndef TIDEPOOL_WORKER_KERNELS_CUDA_MOVE_ROWS_BODY_H_
#define TIDEPOOL_WORKER_KERNELS_CUDA_MOVE_ROWS_BODY_H_

#include "worker/kernels/cuda/slot_pages.h"

namespace tidepool::cuda {

// Copies rows, K then V, between slots and an array, or back. One CTA for a row. Bytes: each row once each way.
struct MoveRows {
  static constexpr int kThreads = 32;
  struct Args {
    PageMemoryView memory;
    const int64_t* places = nullptr;  // [rows]: page * kSlotsOfPage + slot
    uint16_t* rows = nullptr;         // [rows][2 * head_dim]
    bool into_slots = false;
  };
  struct Shared {};

  template <class Cta>
  TP_KERNEL static void Run(Cta& cta, Shared&, const Args& args) {
    const int64_t place = args.places[cta.x()];
    const int head_dim = args.memory.head_dim, words = head_dim / 8;
    uint16_t* row = args.rows + static_cast<int64_t>(cta.x()) * 2 * head_dim;
    for (int i = cta.thread(); i < 2 * words; i += kThreads) {
      uint16_t* slot = (i < words ? args.memory.Keys(place / kSlotsOfPage) : args.memory.Values(place / kSlotsOfPage)) +
                       place % kSlotsOfPage * head_dim + i % words * 8;
      const Words4 moved = LoadWords(args.into_slots ? row + i * 8 : slot);
      StoreWords(args.into_slots ? slot : row + i * 8, moved);
    }
  }
};

// Writes page entries where they belong. A thread for an entry.
struct UpdateEntries {
  static constexpr int kThreads = 128;
  struct Update {
    PageEntry* to;
    PageEntry entry;
  };
  struct Args {
    const Update* updates = nullptr;
    int32_t count = 0;
  };
  struct Shared {};

  template <class Cta>
  TP_KERNEL static void Run(Cta& cta, Shared&, const Args& args) {
    const int i = cta.x() * kThreads + cta.thread();
    if (i < args.count) *args.updates[i].to = args.updates[i].entry;
  }
};

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_WORKER_KERNELS_CUDA_MOVE_ROWS_BODY_H_
