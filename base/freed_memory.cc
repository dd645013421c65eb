#include "base/freed_memory.h"

#include <malloc.h>

namespace tidepool {
namespace {

constexpr int kMiB = 1 << 20;

}  // namespace

void KeepFreedMemory() {
#if defined(__GLIBC__)
  mallopt(M_MMAP_THRESHOLD, 32 * kMiB);   // the most that is allowed: what is larger has a mapping of its own
  mallopt(M_TRIM_THRESHOLD, 256 * kMiB);  // free at the end of the heap, before it is given back
  mallopt(M_TOP_PAD, 64 * kMiB);          // the heap's steps; of threads' heaps, what may be free before one goes
#endif
}

}  // namespace tidepool
