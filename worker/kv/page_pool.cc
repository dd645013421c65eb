#include "worker/kv/page_pool.h"

#include <algorithm>
#include <bit>

#include "base/check.h"

namespace tidepool {
namespace {

int32_t Lowest(int32_t extent, uint16_t pages) {
  return extent * PagePool::kExtentPages + std::countr_zero(static_cast<uint32_t>(pages));
}

uint16_t Bit(int32_t page) { return static_cast<uint16_t>(1u << (page % PagePool::kExtentPages)); }

}  // namespace

PagePool::PagePool(int32_t pages, const PageBytes& page_bytes) : page_bytes_(page_bytes), total_(pages) {
  for (int i = 0; i < kKvPrecisions; ++i) {
    if (page_bytes[i] > 0) ranges_[i].pages = static_cast<int32_t>(total_bytes() / static_cast<int64_t>(page_bytes[i]));
  }
}

uint16_t PagePool::PagesOf(const Range& range, int32_t extent) {
  const int32_t pages = std::min(range.pages - extent * kExtentPages, kExtentPages);
  return static_cast<uint16_t>((1u << pages) - 1);
}

bool PagePool::Holds(const Range& range, int32_t page) {
  const auto extent = static_cast<size_t>(page / kExtentPages);
  return extent < range.extents.size() && (range.extents[extent].held & Bit(page)) != 0;
}

int32_t PagePool::Choose(const Range& range, int32_t after, bool many) {
  const auto used_before = static_cast<int32_t>(range.extents.size());
  const bool has_fresh = used_before * kExtentPages < range.pages;
  if (after >= 0) {
    const int32_t extent = after / kExtentPages;
    const auto behind = static_cast<uint16_t>(range.extents[extent].free & ~(2u * Bit(after) - 1));
    if (behind != 0) return Lowest(extent, behind);
    const int32_t next = extent + 1;
    if (range.whole.contains(next) || (next == used_before && has_fresh && many)) return next * kExtentPages;
  }
  if (!range.whole.empty()) return *range.whole.begin() * kExtentPages;
  if (range.broken.empty() || (many && has_fresh)) return used_before * kExtentPages;
  const int32_t extent = *range.broken.begin();
  return Lowest(extent, range.extents[extent].free);
}

void PagePool::SetFree(Range& range, int32_t extent, uint16_t free) {
  const uint16_t pages = PagesOf(range, extent);
  auto among = [&](std::set<int32_t>& extents, bool is) {
    if (is) {
      extents.insert(extent);
    } else {
      extents.erase(extent);
    }
  };
  range.extents[extent].free = free;
  among(range.whole, free == pages);
  among(range.broken, free != 0 && free != pages);
}

int32_t PagePool::Allocate(KvPrecision precision, int32_t after, bool many) {
  Range& range = ranges_[static_cast<int>(precision)];
  const auto bytes = static_cast<int64_t>(page_bytes(precision));
  TIDEPOOL_CHECK(bytes > 0 && used_bytes() + bytes <= total_bytes());
  const int32_t page = Choose(range, after, many), extent = page / kExtentPages;
  TIDEPOOL_CHECK(page < range.pages);
  used_bytes_.fetch_add(bytes, std::memory_order_relaxed);
  const bool held = Holds(range, page);
  if (!held && held_bytes_ + bytes > total_bytes()) GiveBack();
  if (extent == static_cast<int32_t>(range.extents.size())) {
    range.extents.emplace_back();
    range.extents[extent].free = PagesOf(range, extent);
  }
  SetFree(range, extent, static_cast<uint16_t>(range.extents[extent].free & ~Bit(page)));
  if (held) return page;
  held_bytes_ += bytes;
  range.extents[extent].held |= Bit(page);
  if (hold_) hold_(precision, page);
  return page;
}

void PagePool::Free(int32_t page, KvPrecision precision) {
  Range& range = ranges_[static_cast<int>(precision)];
  const int32_t extent = page / kExtentPages;
  SetFree(range, extent, static_cast<uint16_t>(range.extents[extent].free | Bit(page)));
  used_bytes_.fetch_sub(static_cast<int64_t>(page_bytes(precision)), std::memory_order_relaxed);
}

void PagePool::GiveBack() {
  for (int i = 0; i < kKvPrecisions; ++i) {
    Range& range = ranges_[i];
    std::vector<int32_t> pages;
    for (int32_t e = 0; e < static_cast<int32_t>(range.extents.size()); ++e) {
      Extent& extent = range.extents[e];
      for (auto given = static_cast<uint16_t>(extent.free & extent.held); given != 0; given &= given - 1) {
        pages.push_back(Lowest(e, given));
      }
      extent.held &= ~extent.free;
    }
    if (pages.empty()) continue;
    if (release_) release_(static_cast<KvPrecision>(i), pages);
    held_bytes_ -= static_cast<int64_t>(pages.size() * page_bytes_[i]);
  }
}

}  // namespace tidepool
