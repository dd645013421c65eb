#include "worker/backend/cpu/page_memory.h"

#include <sys/mman.h>

#include <cstring>

#include "absl/strings/str_cat.h"

namespace tidepool {
namespace {

// Rows outside the pages lie at any address: those of a restored session are a part of its manifest.
template <typename Element>
void ReadRow(const char* page, int head_dim, int slot, char* row) {
  const Element* keys = reinterpret_cast<const Element*>(page);
  for (int c = 0; c < head_dim; ++c) {
    std::memcpy(row + c * sizeof(Element), keys + c * kPageSlots + slot, sizeof(Element));
  }
  std::memcpy(row + head_dim * sizeof(Element), keys + (kPageSlots + slot) * head_dim, sizeof(Element) * head_dim);
}

template <typename Element>
void WriteRow(char* page, int head_dim, int slot, const char* row) {
  Element* keys = reinterpret_cast<Element*>(page);
  for (int c = 0; c < head_dim; ++c) {
    std::memcpy(keys + c * kPageSlots + slot, row + c * sizeof(Element), sizeof(Element));
  }
  std::memcpy(keys + (kPageSlots + slot) * head_dim, row + head_dim * sizeof(Element), sizeof(Element) * head_dim);
}

}  // namespace

PageMemory::PageMemory(const KvLayout& layout, char* base, size_t bytes)
    : head_dim_(layout.head_dim),
      element_bytes_(ElementBytes(layout.type)),
      page_bytes_(PageBytes(layout)),
      bytes_(bytes),
      base_(base) {}

PageMemory::~PageMemory() { munmap(base_, bytes_); }

absl::StatusOr<std::unique_ptr<PageMemory>> PageMemory::Create(const KvLayout& layout, int32_t pages) {
  const size_t bytes = PageBytes(layout) * static_cast<size_t>(pages);
  void* base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("device_kv_bytes: cannot reserve ", bytes, " bytes for slot pages"));
  }
  return std::unique_ptr<PageMemory>(new PageMemory(layout, static_cast<char*>(base), bytes));
}

void PageMemory::Read(int32_t page_index, int32_t slot, char* row) const {
  if (element_bytes_ == 2) {
    ReadRow<uint16_t>(page(page_index), head_dim_, slot, row);
  } else {
    ReadRow<uint32_t>(page(page_index), head_dim_, slot, row);
  }
}

void PageMemory::Write(int32_t page_index, int32_t slot, const char* row) {
  if (element_bytes_ == 2) {
    WriteRow<uint16_t>(page(page_index), head_dim_, slot, row);
  } else {
    WriteRow<uint32_t>(page(page_index), head_dim_, slot, row);
  }
}

}  // namespace tidepool
