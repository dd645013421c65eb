#include "worker/kv/page_pool.h"

#include <algorithm>

#include "base/check.h"

namespace tidepool {

PagePool::PagePool(int32_t pages, const PageBytes& page_bytes) : page_bytes_(page_bytes), total_(pages) {}

int32_t PagePool::Allocate(KvPrecision precision) {
  Class& pages = classes_[static_cast<int>(precision)];
  const auto bytes = static_cast<int64_t>(page_bytes(precision));
  const int64_t total_bytes = int64_t{total_} * static_cast<int64_t>(page_bytes());
  TIDEPOOL_CHECK(bytes > 0 && used_bytes() + bytes <= total_bytes);
  used_bytes_.fetch_add(bytes, std::memory_order_relaxed);
  auto take = [](std::vector<int32_t>& from) {
    const int32_t page = from.back();
    from.pop_back();
    return page;
  };
  if (!pages.free.empty()) return take(pages.free);
  if (held_bytes_ + bytes > total_bytes) GiveBack();
  held_bytes_ += bytes;
  const int32_t page = pages.hollow.empty() ? pages.fresh++ : take(pages.hollow);
  if (hold_) hold_(precision, page);
  return page;
}

void PagePool::Free(int32_t page, KvPrecision precision) {
  classes_[static_cast<int>(precision)].free.push_back(page);
  used_bytes_.fetch_sub(static_cast<int64_t>(page_bytes(precision)), std::memory_order_relaxed);
}

void PagePool::GiveBack() {
  for (int i = 0; i < kKvPrecisions; ++i) {
    Class& pages = classes_[i];
    if (pages.free.empty()) continue;
    std::sort(pages.free.begin(), pages.free.end());
    if (release_) release_(static_cast<KvPrecision>(i), pages.free);
    held_bytes_ -= static_cast<int64_t>(pages.free.size() * page_bytes_[i]);
    pages.hollow.insert(pages.hollow.end(), pages.free.rbegin(), pages.free.rend());  // the lowest is taken first
    pages.free.clear();
  }
}

}  // namespace tidepool
