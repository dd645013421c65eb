#include "cacheservice/tiers/remote_record.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "cacheservice/resp/hash_slot.h"
#include "cacheservice/tiers/tiered_store.h"

namespace tidepool {
namespace {

constexpr std::string_view kMagic = "TPR1";

void Append(uint32_t value, std::string* out) { out->append(reinterpret_cast<const char*>(&value), sizeof value); }

uint32_t Read(std::string_view record, size_t at) {
  uint32_t value = 0;
  std::memcpy(&value, record.data() + at, sizeof value);
  return value;
}

std::string Named(const BlockId& id) {
  std::string name(kMagic);
  name.append(id.key.AsString());
  Append(static_cast<uint32_t>(id.layer), &name);
  return name;
}

}  // namespace

size_t RemoteHead::SizeOfPiece(uint32_t index) const {
  TIDEPOOL_CHECK(index < pieces());
  return std::min(piece_bytes, value_bytes - index * piece_bytes);
}

std::string RemoteHeadKey(const BlockId& id) { return absl::StrCat("tidepool:1:{", id.key.ToHex(), "}:", id.layer); }

std::string RemotePieceKey(const BlockId& id, uint32_t tag, uint32_t index) {
  return absl::StrCat(RemoteHeadKey(id), ":", absl::Hex(tag, absl::kZeroPad8), ":", index);
}

uint16_t RemoteSlot(const BlockKey& key) { return HashSlot(key.ToHex()); }

std::string EncodeRemoteHead(const BlockId& id, std::string_view value, uint32_t piece_bytes, uint32_t tag) {
  TIDEPOOL_CHECK(!value.empty() && value.size() <= kMaxBlockValueBytes);
  std::string record;
  record.reserve(kRemoteHeadBytes + std::min<size_t>(value.size(), piece_bytes));
  record += Named(id);
  Append(static_cast<uint32_t>(value.size()), &record);
  Append(piece_bytes, &record);
  Append(tag, &record);
  TIDEPOOL_CHECK(record.size() == kRemoteHeadBytes);
  record.append(value.substr(0, piece_bytes));
  return record;
}

absl::StatusOr<RemoteHead> ParseRemoteHead(const BlockId& id, std::string_view record) {
  static constexpr size_t kNameBytes = 24;
  if (record.size() < kRemoteHeadBytes || record.substr(0, 4) != kMagic) {
    return absl::DataLossError("remote record: no head");
  }
  if (record.substr(0, kNameBytes) != Named(id)) return absl::DataLossError("remote record: of another block");
  RemoteHead head = {.value_bytes = Read(record, kNameBytes),
                     .piece_bytes = Read(record, kNameBytes + 4),
                     .tag = Read(record, kNameBytes + 8),
                     .first_piece = record.substr(kRemoteHeadBytes)};
  if (head.value_bytes == 0 || head.value_bytes > kMaxBlockValueBytes || head.piece_bytes < kMinPieceBytes ||
      head.piece_bytes > kMaxPieceBytes || head.first_piece.size() != head.SizeOfPiece(0)) {
    return absl::DataLossError(absl::StrCat("remote record: a value of ", head.value_bytes, " bytes in pieces of ",
                                            head.piece_bytes, ", the first of ", head.first_piece.size()));
  }
  return head;
}

}  // namespace tidepool
