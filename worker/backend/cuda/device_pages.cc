#include "worker/backend/cuda/device_pages.h"

#include <algorithm>
#include <cstddef>

#include "base/check.h"
#include "base/limits.h"
#include "base/status_macros.h"

namespace tidepool::cuda {
namespace {

constexpr size_t kLargestSlab = size_t{4} << 20;
constexpr size_t kLeastPagesOfSlab = 16;  // of the largest: what does not fill a slab is lost

size_t RoundUp(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

}  // namespace

PageBytes DevicePages::BytesOf(const KvLayout& layout) {
  PageBytes bytes = {kPageSlots * layout.row_bytes()};
  for (int i = 1; i < kKvPrecisions; ++i) {
    bytes[i] = PackedPage(static_cast<KvPrecision>(i), layout.head_dim).bytes;
  }
  return bytes;
}

absl::StatusOr<std::unique_ptr<DevicePages>> DevicePages::Create(Device* device, const KvLayout& layout,
                                                                 int32_t pages) {
  const PageBytes page_bytes = BytesOf(layout);
  const size_t total = static_cast<size_t>(pages) * page_bytes[0];
  const size_t largest = *std::max_element(page_bytes.begin(), page_bytes.end());
  const size_t slab_bytes =
      RoundUp(std::max(kLeastPagesOfSlab * largest, std::min(kLargestSlab, total / 256)), kPlaceBytes);
  // A slab holds at least so much. If of no precision a slab can be emptied into the others, each has free places for
  // less than a slab: with a slab more for every other precision one is free.
  size_t held = slab_bytes;
  for (const size_t bytes : page_bytes) held = std::min(held, slab_bytes / bytes * bytes);
  const size_t slabs = (total + held - 1) / held + kKvPrecisions - 1;
  if (slabs * slab_bytes / kPlaceBytes > UINT32_MAX) {
    return absl::InvalidArgumentError("device_kv_bytes: more than 256 GiB");
  }
  TP_ASSIGN_OR_RETURN(void* const memory, device->Allocate(slabs * slab_bytes));
  return std::unique_ptr<DevicePages>(new DevicePages(device, layout, slab_bytes, static_cast<int32_t>(slabs), memory));
}

DevicePages::DevicePages(Device* device, const KvLayout& layout, size_t slab_bytes, int32_t slabs, void* memory)
    : device_(device),
      head_dim_(layout.head_dim),
      slab_bytes_(slab_bytes),
      memory_(static_cast<char*>(memory)),
      slabs_(slabs) {
  const PageBytes page_bytes = BytesOf(layout);
  for (int i = 0; i < kKvPrecisions; ++i) {
    kinds_[i].page_bytes = page_bytes[i];
    kinds_[i].pages_of_slab = static_cast<int32_t>(slab_bytes / page_bytes[i]);
  }
  for (int32_t slab = slabs - 1; slab >= 0; --slab) free_slabs_.push_back(slab);  // the lowest is taken first
}

DevicePages::~DevicePages() { device_->Free(memory_); }

void DevicePages::Hold(KvPrecision precision, int32_t page, Move move) {
  Kind& kind = kinds_[static_cast<int>(precision)];
  if (kind.open.empty()) {
    if (free_slabs_.empty()) MakeSlab(kind, move);
    OpenSlab(kind);
  }
  Put(kind, page);
}

void DevicePages::Release(KvPrecision precision, absl::Span<const int32_t> pages) {
  for (const int32_t page : pages) Remove(kinds_[static_cast<int>(precision)], page);
}

void DevicePages::OpenSlab(Kind& kind) {
  const int32_t index = free_slabs_.back();
  free_slabs_.pop_back();
  Slab& slab = slabs_[index];
  slab.page.assign(kind.pages_of_slab, -1);
  slab.free.clear();
  for (int32_t at = kind.pages_of_slab - 1; at >= 0; --at) slab.free.push_back(at);
  kind.slabs.push_back(index);
  kind.open.push_back(index);
  kind.free += kind.pages_of_slab;
}

void DevicePages::Put(Kind& kind, int32_t page) {
  const int32_t index = kind.open.back();
  Slab& slab = slabs_[index];
  const int32_t at = slab.free.back();
  slab.free.pop_back();
  if (slab.free.empty()) kind.open.pop_back();
  slab.page[at] = page;
  ++slab.used;
  --kind.free;
  if (page >= static_cast<int32_t>(kind.place.size())) kind.place.resize(page + 1);
  kind.place[page] = PlaceIn(kind, index, at);
}

void DevicePages::Remove(Kind& kind, int32_t page) {
  const size_t byte = static_cast<size_t>(kind.place[page]) * kPlaceBytes;
  const auto index = static_cast<int32_t>(byte / slab_bytes_);
  const auto at = static_cast<int32_t>(byte % slab_bytes_ / kind.page_bytes);
  Slab& slab = slabs_[index];
  TIDEPOOL_CHECK(slab.page[at] == page);
  if (slab.free.empty()) kind.open.push_back(index);
  slab.page[at] = -1;
  slab.free.push_back(at);
  ++kind.free;
  if (--slab.used > 0) return;
  std::erase(kind.open, index);
  std::erase(kind.slabs, index);
  kind.free -= kind.pages_of_slab;
  free_slabs_.push_back(index);
}

void DevicePages::MakeSlab(const Kind& wanted, Move move) {
  for (Kind& kind : kinds_) {
    if (&kind == &wanted || kind.slabs.empty()) continue;
    const int32_t index = *std::min_element(kind.slabs.begin(), kind.slabs.end(),
                                            [this](int32_t a, int32_t b) { return slabs_[a].used < slabs_[b].used; });
    Slab& slab = slabs_[index];
    if (kind.free - static_cast<int64_t>(slab.free.size()) < slab.used) continue;
    // Its free places are not there for its own pages.
    std::erase(kind.open, index);
    const auto free = static_cast<int64_t>(slab.free.size());
    kind.free -= free;
    std::vector<CopyPages::Copy> copies;
    for (const int32_t page : slab.page) {
      if (page < 0) continue;
      const char* from = view().Page(kind.place[page]);
      Put(kind, page);
      copies.push_back({from, view().Page(kind.place[page])});
    }
    slab.used = 0;
    std::erase(kind.slabs, index);
    free_slabs_.push_back(index);
    ++moves_;
    move(copies, kind.page_bytes);
    return;
  }
  TIDEPOOL_CHECK(false);  // the constructor's slabs suffice
}

}  // namespace tidepool::cuda
