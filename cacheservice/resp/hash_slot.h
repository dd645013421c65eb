// Which of the 16,384 hash slots of a Redis Cluster a key belongs to: CRC16 (CCITT, polynomial 0x1021, initial value 0)
// of the key, or of what stands between its first brace pair when that is not empty (the hash tag).
#ifndef TIDEPOOL_CACHESERVICE_RESP_HASH_SLOT_H_
#define TIDEPOOL_CACHESERVICE_RESP_HASH_SLOT_H_

#include <cstdint>
#include <string_view>

namespace tidepool {

inline constexpr int kHashSlots = 16'384;

uint16_t Crc16(std::string_view bytes);
uint16_t HashSlot(std::string_view key);  // below kHashSlots

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RESP_HASH_SLOT_H_
