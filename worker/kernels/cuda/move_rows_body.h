// Rows out of slots, into slots, and what the device knows of them.
#ifndef TIDEPOOL_WORKER_KERNELS_CUDA_MOVE_ROWS_BODY_H_
#define TIDEPOOL_WORKER_KERNELS_CUDA_MOVE_ROWS_BODY_H_

#include "worker/kernels/cuda/slot_pages.h"

namespace tidepool::cuda {

// Copies rows, K then V, from places to an array, packed ones expanded, or from there into slots of slot pages. One CTA
// for a row. Bytes: each row once each way.
struct MoveRows {
  static constexpr int kThreads = 32;
  struct Args {
    PageMemoryView memory;
    const RowPlace* places = nullptr;  // [rows]
    uint16_t* rows = nullptr;          // [rows][2 * head_dim]
    bool into_slots = false;
  };
  struct Shared {};

  template <class Cta>
  TP_KERNEL static void Run(Cta& cta, Shared&, const Args& args) {
    const RowPlace place = args.places[cta.x()];
    const int head_dim = args.memory.head_dim, words = head_dim / 8;
    uint16_t* row = args.rows + static_cast<int64_t>(cta.x()) * 2 * head_dim;
    for (int i = cta.thread(); i < 2 * words; i += kThreads) {
      if (place.precision != KvPrecision::kF16) {
        const PackedRows packed(args.memory, place.place, place.precision, i % words * 8);
        StoreWords(row + i * 8, packed.HalvesOf(i >= words, place.row));
        continue;
      }
      uint16_t* slot = (i < words ? args.memory.Keys(place.place) : args.memory.Values(place.place)) +
                       place.row * head_dim + i % words * 8;
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
