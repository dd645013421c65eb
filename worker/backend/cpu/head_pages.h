// Where the pages of a (sequence, layer, kv head) are, as an AttentionTask wants it.
#ifndef TIDEPOOL_WORKER_BACKEND_CPU_HEAD_PAGES_H_
#define TIDEPOOL_WORKER_BACKEND_CPU_HEAD_PAGES_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "policies/kv/packed_page.h"
#include "worker/backend/cpu/page_memory.h"
#include "worker/kernels/cpu/attention.h"
#include "worker/kv/resident_rows.h"

namespace tidepool {

class HeadPages {
 public:
  // Keeps the memory of what it held before. layouts: by precision. by_slot: rows are told in the order of their slots,
  // which is that of memory, not of their positions; where all are plain, free slots among them as holes.
  void Find(const PageMemory& memory, const std::vector<PackedPage>& layouts, const HeadRows& head,
            bool by_slot = false);
  // The task's pages, slots, order, rows and holes; valid until Find and while the head does not change.
  void SetIn(const HeadRows& head, AttentionTask& task) const;

 private:
  std::vector<const void*> addresses_;
  std::vector<uint8_t> halves_;      // empty: all are slot pages
  bool in_order_ = true;             // the i-th row has slot i
  const int32_t* order_ = nullptr;   // else
  int32_t rows_ = 0;                 // with holes among them
  std::vector<int32_t> taken_;       // by_slot, with packed rows: slots in use, ascending
  absl::Span<const int32_t> holes_;  // by_slot, without
  KvPrecision packed_ = KvPrecision::kF16;
  const PackedPage* layout_ = nullptr;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_BACKEND_CPU_HEAD_PAGES_H_
