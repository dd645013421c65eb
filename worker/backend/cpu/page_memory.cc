#include "worker/backend/cpu/page_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "worker/kernels/cpu/attention.h"

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

// A whole page from rows of others.
template <typename Element, typename PageOf>
void GatherPage(absl::Span<const PageMemory::Place> rows, int head_dim, const PageOf& page_of, char* out) {
  Element* keys = reinterpret_cast<Element*>(out);
  for (size_t i = 0; i < rows.size(); ++i) {
    const Element* from = reinterpret_cast<const Element*>(page_of(rows[i].page));
    for (int c = 0; c < head_dim; ++c) keys[c * kPageSlots + i] = from[c * kPageSlots + rows[i].slot_in_page];
    std::memcpy(keys + (kPageSlots + i) * head_dim, from + (kPageSlots + rows[i].slot_in_page) * head_dim,
                sizeof(Element) * head_dim);
  }
}

}  // namespace

PageMemory::PageMemory(const KvLayout& layout, int32_t pages)
    : head_dim_(layout.head_dim),
      element_bytes_(ElementBytes(layout.type)),
      page_bytes_(BytesOf(layout)),
      range_bytes_(page_bytes_[0] * static_cast<size_t>(pages)) {}

PageMemory::~PageMemory() {
  for (char* base : base_) {
    if (base != nullptr) munmap(base, range_bytes_);
  }
}

PageBytes PageMemory::BytesOf(const KvLayout& layout) {
  PageBytes bytes = {kPageSlots * layout.row_bytes()};
  for (int i = 1; i < kKvPrecisions; ++i) bytes[i] = PackedPage(static_cast<KvPrecision>(i), layout.head_dim).bytes;
  return bytes;
}

absl::StatusOr<std::unique_ptr<PageMemory>> PageMemory::Create(const KvLayout& layout, int32_t pages) {
  std::unique_ptr<PageMemory> memory(new PageMemory(layout, pages));
  for (char*& base : memory->base_) {
    void* range =
        mmap(nullptr, memory->range_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range == MAP_FAILED) {
      return absl::ResourceExhaustedError(
          absl::StrCat("device_kv_bytes: cannot reserve ", memory->range_bytes_, " bytes for slot pages"));
    }
    base = static_cast<char*>(range);
    madvise(range, memory->range_bytes_, MADV_HUGEPAGE);
  }
  return memory;
}

void PageMemory::Release(KvPrecision precision, absl::Span<const int32_t> pages) {
  const size_t page_bytes = page_bytes_[static_cast<int>(precision)];
  const auto os_page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  char* const base = base_[static_cast<int>(precision)];
  for (size_t first = 0; first < pages.size();) {
    size_t end = first + 1;
    while (end < pages.size() && pages[end] == pages[end - 1] + 1) ++end;
    const size_t from = (pages[first] * page_bytes + os_page - 1) / os_page * os_page;
    const size_t to = (pages[end - 1] + 1) * page_bytes / os_page * os_page;
    if (from < to) madvise(base + from, to - from, MADV_DONTNEED);
    first = end;
  }
}

void PageMemory::Read(int32_t page_index, int32_t slot, char* row) const {
  if (element_bytes_ == 2) {
    ReadRow<uint16_t>(page(page_index), head_dim_, slot, row);
  } else {
    ReadRow<uint32_t>(page(page_index), head_dim_, slot, row);
  }
}

void PageMemory::ReadFloats(int32_t page_index, int32_t slot, float* row) const {
  if (element_bytes_ == 2) {
    uint16_t raw[2 * kMaxHeadDim];
    Read(page_index, slot, reinterpret_cast<char*>(raw));
    HalfToFloat(raw, 2 * head_dim_, row);
  } else {
    Read(page_index, slot, reinterpret_cast<char*>(row));
  }
}

void PageMemory::Write(int32_t page_index, int32_t slot, const char* row) {
  if (element_bytes_ == 2) {
    WriteRow<uint16_t>(page(page_index), head_dim_, slot, row);
  } else {
    WriteRow<uint32_t>(page(page_index), head_dim_, slot, row);
  }
}

void PageMemory::Move(absl::Span<const Place> from, absl::Span<const int32_t> to) {
  const size_t bytes = page_bytes_[0];
  std::vector<char> moved(to.size() * bytes);
  auto page_of = [this](int32_t index) { return page(index); };
  for (size_t i = 0; i < to.size(); ++i) {
    const absl::Span<const Place> rows = from.subspan(i * kPageSlots, kPageSlots);
    if (element_bytes_ == 2) {
      GatherPage<uint16_t>(rows, head_dim_, page_of, moved.data() + i * bytes);
    } else {
      GatherPage<uint32_t>(rows, head_dim_, page_of, moved.data() + i * bytes);
    }
  }
  for (size_t i = 0; i < to.size(); ++i) std::memcpy(page(to[i]), moved.data() + i * bytes, bytes);
}

}  // namespace tidepool
