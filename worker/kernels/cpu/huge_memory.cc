#include "worker/kernels/cpu/huge_memory.h"

#include <sys/mman.h>

#include <algorithm>

#include "base/check.h"

namespace tidepool {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kRange = size_t{256} << 20;  // of addresses: memory is what is written
constexpr size_t kAlignment = 64;

size_t RoundUp(size_t value, size_t multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace

HugeMemory::~HugeMemory() {
  for (const Range& range : ranges_) munmap(range.base, range.bytes);
}

uint8_t* HugeMemory::Take(size_t bytes) {
  bytes = RoundUp(bytes, kAlignment);
  if (bytes > left_) {
    const size_t range = std::max(kRange, RoundUp(bytes, kHugePage)) + kHugePage;
    void* base = mmap(nullptr, range, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    TIDEPOOL_CHECK(base != MAP_FAILED);
    madvise(base, range, MADV_HUGEPAGE);  // where there are none, it is memory all the same
    ranges_.push_back({base, range});
    next_ = reinterpret_cast<uint8_t*>(RoundUp(reinterpret_cast<uintptr_t>(base), kHugePage));
    left_ = range - static_cast<size_t>(next_ - static_cast<uint8_t*>(base));
  }
  uint8_t* taken = next_;
  next_ += bytes;
  left_ -= bytes;
  return taken;
}

}  // namespace tidepool
