#include "base/checksum.h"

#if defined(__x86_64__)
#include <xxh_x86dispatch.h>  // XXH3_64bits is now the one that uses AVX2 or AVX-512 where the processor has it
#else
#include <xxhash.h>
#endif

namespace tidepool {

uint32_t Checksum32(const void* data, size_t size_bytes) {
  return static_cast<uint32_t>(XXH3_64bits(data, size_bytes));
}

}  // namespace tidepool
