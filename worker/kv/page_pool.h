// Which slot pages of the device are free. One engine thread allocates; counts may be read from any thread.
#ifndef TIDEPOOL_WORKER_KV_PAGE_POOL_H_
#define TIDEPOOL_WORKER_KV_PAGE_POOL_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/check.h"

namespace tidepool {

class PagePool {
 public:
  PagePool(int32_t pages, size_t page_bytes) : page_bytes_(page_bytes), total_(pages) {
    free_.reserve(pages);
    for (int32_t page = pages - 1; page >= 0; --page) free_.push_back(page);
  }

  // The caller has reserved: running dry is a bug of the admission.
  int32_t Allocate() {
    TIDEPOOL_CHECK(!free_.empty());
    const int32_t page = free_.back();
    free_.pop_back();
    used_.fetch_add(1, std::memory_order_relaxed);
    return page;
  }
  void Free(int32_t page) {
    free_.push_back(page);
    used_.fetch_sub(1, std::memory_order_relaxed);
  }

  size_t page_bytes() const { return page_bytes_; }
  int32_t total() const { return total_; }
  int32_t used() const { return used_.load(std::memory_order_relaxed); }

 private:
  const size_t page_bytes_;
  const int32_t total_;
  std::atomic<int32_t> used_{0};
  std::vector<int32_t> free_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_PAGE_POOL_H_
