// Keys and entries of the disk tier in the database, as bytes (disk_tier.h says which family has which).
//
//   key of a value   sequence (8, big endian) ++ block key (16) ++ layer (4, big endian)
//   key of an entry  sequence (8, big endian)
//   entry            block key (16) ++ layer (4, big endian) ++ value size, its highest bit set (4, little endian)
//                    ++ when it was written, Unix seconds (4, little endian) ++ tenant (the rest; empty: not known)
//
// In an entry of before there were times that bit is not set, and the time is not there.
#ifndef TIDEPOOL_CACHESERVICE_TIERS_DISK_RECORDS_H_
#define TIDEPOOL_CACHESERVICE_TIERS_DISK_RECORDS_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "cacheservice/api/block_cache.h"

namespace tidepool {

inline constexpr size_t kSequenceBytes = 8;

struct DiskEntry {
  BlockId id;
  uint32_t value_bytes = 0;  // below 2^31
  uint32_t written = 0;      // Unix seconds; 0: not known
  std::string_view tenant;   // of the bytes that were parsed
};

uint64_t ReadBigEndian(std::string_view bytes);
std::string SequenceKey(uint64_t sequence);
std::string ValueKey(uint64_t sequence, const BlockId& id);
std::string IndexEntry(const DiskEntry& entry);
// nullopt: not an entry that we wrote.
std::optional<DiskEntry> ParseIndexEntry(std::string_view entry);

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_DISK_RECORDS_H_
