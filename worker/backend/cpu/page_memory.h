// The memory of all slot pages in host RAM: reserved once, touched as pages come into use.
#ifndef TIDEPOOL_WORKER_BACKEND_CPU_PAGE_MEMORY_H_
#define TIDEPOOL_WORKER_BACKEND_CPU_PAGE_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "policies/kv/kv_layout.h"

namespace tidepool {

class PageMemory {
 public:
  // ResourceExhausted when the address space cannot be had.
  static absl::StatusOr<std::unique_ptr<PageMemory>> Create(const KvLayout& layout, int32_t pages);
  ~PageMemory();
  PageMemory(const PageMemory&) = delete;
  PageMemory& operator=(const PageMemory&) = delete;

  static size_t PageBytes(const KvLayout& layout) { return kPageSlots * layout.row_bytes(); }
  char* page(int32_t index) const { return base_ + static_cast<size_t>(index) * page_bytes_; }

  // One row (K then V, layout elements) out of and into a slot of a page.
  void Read(int32_t page, int32_t slot_in_page, char* row) const;
  void Write(int32_t page, int32_t slot_in_page, const char* row);

 private:
  PageMemory(const KvLayout& layout, char* base, size_t bytes);

  const int head_dim_;
  const size_t element_bytes_, page_bytes_, bytes_;
  char* const base_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_BACKEND_CPU_PAGE_MEMORY_H_
