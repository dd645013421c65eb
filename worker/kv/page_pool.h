// Which pages of the device are free: slot pages of kPageSlots rows as computed, and packed pages of kGroupTokens rows
// in each of the smaller precisions. They are of different sizes and share one budget of bytes. Each precision has an
// address range of its own, as long as the whole budget, so that no page can be kept out by where others lie; what free
// pages hold of the machine's memory is given back when the ranges together would take more than the budget.
//
// One engine thread allocates; counts may be read from any thread.
#ifndef TIDEPOOL_WORKER_KV_PAGE_POOL_H_
#define TIDEPOOL_WORKER_KV_PAGE_POOL_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "absl/types/span.h"
#include "policies/kv/packed_page.h"

namespace tidepool {

using PageBytes = std::array<size_t, kKvPrecisions>;

class PagePool {
 public:
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
  int32_t Allocate(KvPrecision precision = KvPrecision::kF16);
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
  struct Class {
    int32_t fresh = 0;            // pages from here on were never used
    std::vector<int32_t> free;    // used before: their memory is still held
    std::vector<int32_t> hollow;  // free, and their memory given back
  };

  void GiveBack();

  const PageBytes page_bytes_;
  const int32_t total_;
  Release release_;
  Hold hold_;
  std::atomic<int64_t> used_bytes_{0};
  int64_t held_bytes_ = 0;  // used pages and free ones whose memory is held
  std::array<Class, kKvPrecisions> classes_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_PAGE_POOL_H_
