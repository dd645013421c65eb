// Which pages of the device are free: slot pages of kPageSlots rows as computed, and packed pages of kGroupTokens rows
// in each of the smaller precisions. They are of different sizes and share one budget of bytes. Each precision has an
// address range of its own, as long as the whole budget, so that no page can be kept out by where others lie; what free
// pages hold of the machine's memory is given back when the ranges together would take more than the budget.
//
// A head's pages are read one after another, and memory is read faster where they lie side by side (measured in
// docs/decisions/0021-extents.md). So a head gets pages that follow those it has, and begins where a whole extent of
// kExtentPages is free, if there is one.
//
// One engine thread allocates; counts may be read from any thread.
#ifndef TIDEPOOL_WORKER_KV_PAGE_POOL_H_
#define TIDEPOOL_WORKER_KV_PAGE_POOL_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <set>
#include <vector>

#include "absl/types/span.h"
#include "policies/kv/packed_page.h"

namespace tidepool {

using PageBytes = std::array<size_t, kKvPrecisions>;

class PagePool {
 public:
  static constexpr int32_t kExtentPages = 16;

  // Bytes of `pages` slot pages. Packed pages of size 0 are not to be had.
  PagePool(int32_t pages, const PageBytes& page_bytes);
  PagePool(int32_t pages, size_t page_bytes) : PagePool(pages, PageBytes{page_bytes}) {}

  // Called with pages whose contents need not be kept, by ascending index: their memory may go back to the system.
  using Release = std::function<void(KvPrecision precision, absl::Span<const int32_t> pages)>;
  void set_release(Release release) { release_ = std::move(release); }
  // Called in Allocate with a page that needs memory: one that was never used, or released since.
  using Hold = std::function<void(KvPrecision precision, int32_t page)>;
  void set_hold(Hold hold) { hold_ = std::move(hold); }

  // A page's index among those of its precision. The caller has reserved: running dry is a bug of the admission.
  // after: the page of this precision that is read before it; -1: none. many: most of an extent's will follow at once,
  // so that one never used before is worth it.
  int32_t Allocate(KvPrecision precision = KvPrecision::kF16, int32_t after = -1, bool many = false);
  void Free(int32_t page, KvPrecision precision = KvPrecision::kF16);

  // Of a slot page.
  size_t page_bytes() const { return page_bytes_[0]; }
  size_t page_bytes(KvPrecision precision) const { return page_bytes_[static_cast<int>(precision)]; }
  // All bytes, and those in use, in slot pages; what is used is rounded up.
  int32_t total() const { return total_; }
  int32_t used() const { return static_cast<int32_t>(Pages(used_bytes())); }
  int64_t used_bytes() const { return used_bytes_.load(std::memory_order_relaxed); }
  // Bytes in slot pages, rounded up.
  int64_t Pages(int64_t bytes) const {
    const auto page = static_cast<int64_t>(page_bytes());
    return (bytes + page - 1) / page;
  }

 private:
  // A bit for each page.
  struct Extent {
    uint16_t free = 0;
    uint16_t held = 0;  // its memory is, be it in use or free
  };
  static_assert(kExtentPages == 16);
  struct Range {
    int32_t pages = 0;            // that it has room for
    std::vector<Extent> extents;  // those that were ever used
    std::set<int32_t> whole;      // of them those whose pages are all free,
    std::set<int32_t> broken;     // and some, but not all
  };

  int64_t total_bytes() const { return int64_t{total_} * static_cast<int64_t>(page_bytes()); }
  // The pages of an extent.
  static uint16_t PagesOf(const Range& range, int32_t extent);
  static bool Holds(const Range& range, int32_t page);
  static int32_t Choose(const Range& range, int32_t after, bool many);
  // Its free pages are `free` now.
  static void SetFree(Range& range, int32_t extent, uint16_t free);
  void GiveBack();

  const PageBytes page_bytes_;
  const int32_t total_;
  Release release_;
  Hold hold_;
  std::atomic<int64_t> used_bytes_{0};
  int64_t held_bytes_ = 0;  // used pages and free ones whose memory is held
  std::array<Range, kKvPrecisions> ranges_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_PAGE_POOL_H_
