#include "base/checksum.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace tidepool {

uint32_t Checksum32(const void* data, size_t size_bytes) {
  return static_cast<uint32_t>(XXH3_64bits(data, size_bytes));
}

}  // namespace tidepool
