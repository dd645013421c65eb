// The memory of all slot pages and packed pages in host RAM: address ranges reserved once, touched as pages come into
// use.
#ifndef TIDEPOOL_WORKER_BACKEND_CPU_PAGE_MEMORY_H_
#define TIDEPOOL_WORKER_BACKEND_CPU_PAGE_MEMORY_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "policies/kv/kv_layout.h"
#include "policies/kv/packed_page.h"
#include "worker/kv/page_pool.h"

namespace tidepool {

class PageMemory {
 public:
  // A range as long as `pages` slot pages for each precision. ResourceExhausted when the address space cannot be had.
  static absl::StatusOr<std::unique_ptr<PageMemory>> Create(const KvLayout& layout, int32_t pages);
  ~PageMemory();
  PageMemory(const PageMemory&) = delete;
  PageMemory& operator=(const PageMemory&) = delete;

  static PageBytes BytesOf(const KvLayout& layout);
  size_t page_bytes(KvPrecision precision) const { return page_bytes_[static_cast<int>(precision)]; }
  char* page(int32_t index, KvPrecision precision = KvPrecision::kF16) const {
    const int i = static_cast<int>(precision);
    return base_[i] + static_cast<size_t>(index) * page_bytes_[i];
  }

  // One row (K then V, layout elements) out of and into a slot of a slot page.
  void Read(int32_t page, int32_t slot_in_page, char* row) const;
  void ReadFloats(int32_t page, int32_t slot_in_page, float* row) const;
  void Write(int32_t page, int32_t slot_in_page, const char* row);

  // A slot of a slot page.
  struct Place {
    int32_t page, slot_in_page;
  };
  // The rows at `from` go to the slots 0, 1, ... of `to`, kPageSlots to each page; all are read before any is written.
  // Slots behind the last row hold nothing afterwards. Calls may run at once where they share no page.
  void Move(absl::Span<const Place> from, absl::Span<const int32_t> to);

  // Gives the machine's memory of pages, by ascending index, back where they cover it whole; they read as zeros then.
  void Release(KvPrecision precision, absl::Span<const int32_t> pages);

 private:
  PageMemory(const KvLayout& layout, int32_t pages);

  const int head_dim_;
  const size_t element_bytes_;
  const PageBytes page_bytes_;
  const size_t range_bytes_;
  std::array<char*, kKvPrecisions> base_ = {};
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_BACKEND_CPU_PAGE_MEMORY_H_
