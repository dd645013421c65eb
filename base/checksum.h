// Checksums of stored and transferred bytes: the low 32 bits of XXH3-64 (libxxhash). Chosen over CRC32C because Debian
// 12 packages no CRC32C library with a hardware path; both detect the errors we guard against
// (docs/decisions/0003-checksum.md).
#ifndef TIDEPOOL_BASE_CHECKSUM_H_
#define TIDEPOOL_BASE_CHECKSUM_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace tidepool {

uint32_t Checksum32(const void* data, size_t size_bytes);
inline uint32_t Checksum32(std::string_view bytes) { return Checksum32(bytes.data(), bytes.size()); }

}  // namespace tidepool

#endif  // TIDEPOOL_BASE_CHECKSUM_H_
