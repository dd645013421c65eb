// How a block value lies in a key-value store that speaks RESP (docs/decisions/0012-remote-tier.md). All keys of a
// block carry it as their hash tag, so they lie in one slot; L is the layer, T the record's tag in hexadecimal, i
// from 1.
//
//   tidepool:1:{BLOCK}:L        head: magic "TPR1", block key (16), layer (4), value size (4), piece size (4), tag (4),
//                               all little endian, then the first piece
//   tidepool:1:{BLOCK}:L:T:i    piece i
//
// The head is written last. The tag is the checksum of the whole value and part of the pieces' names: pieces of two
// writers never mix, should their bytes differ. Pure functions.
#ifndef TIDEPOOL_CACHESERVICE_TIERS_REMOTE_RECORD_H_
#define TIDEPOOL_CACHESERVICE_TIERS_REMOTE_RECORD_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "cacheservice/api/block_cache.h"

namespace tidepool {

inline constexpr uint32_t kMinPieceBytes = 64 << 10;
inline constexpr uint32_t kMaxPieceBytes = 1 << 20;
inline constexpr size_t kRemoteHeadBytes = 36;  // before the first piece

struct RemoteHead {
  uint32_t value_bytes = 0;
  uint32_t piece_bytes = 0;
  uint32_t tag = 0;
  std::string_view first_piece;  // into the parsed record

  uint32_t pieces() const { return (value_bytes + piece_bytes - 1) / piece_bytes; }
  size_t SizeOfPiece(uint32_t index) const;
};

std::string RemoteHeadKey(const BlockId& id);
std::string RemotePieceKey(const BlockId& id, uint32_t tag, uint32_t index);  // index from 1
uint16_t RemoteSlot(const BlockKey& key);

// `value` is not empty.
std::string EncodeRemoteHead(const BlockId& id, std::string_view value, uint32_t piece_bytes, uint32_t tag);
// Points into `record`. DataLoss: no head, of another block or layer, or of impossible sizes.
absl::StatusOr<RemoteHead> ParseRemoteHead(const BlockId& id, std::string_view record);

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_REMOTE_RECORD_H_
