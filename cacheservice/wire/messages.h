// Between the cache's own types and its protocol messages, for both ends of the wire. Everything that comes in is
// checked here.
#ifndef TIDEPOOL_CACHESERVICE_WIRE_MESSAGES_H_
#define TIDEPOOL_CACHESERVICE_WIRE_MESSAGES_H_

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "cacheservice/api/block_cache.h"
#include "policies/kv/kv_layout.h"
#include "tidepool/v1/cache_store.pb.h"

namespace tidepool {

inline constexpr int kCacheProtocol = 1;
inline constexpr int kMaxWireSelections = 65'536;
inline constexpr size_t kMaxWireValueBytes = size_t{8} << 20;
inline constexpr int64_t kMaxWireRecallBytes = int64_t{32} << 20;  // rows that one recall request may ask for

inline constexpr size_t kMaxPodNameBytes = 128;

v1::StreamHello HelloOf(std::string_view tenant, const KvLayout& layout);
// For offloading blocks of any model.
v1::StreamHello AnyShapeHelloOf(std::string_view tenant);
// Protocol and tenant. InvalidArgument naming the field, FailedPrecondition for another protocol.
absl::Status CheckHello(const v1::StreamHello& hello);
// CheckHello, and the shape.
absl::StatusOr<KvLayout> LayoutOfHello(const v1::StreamHello& hello);
// FailedPrecondition naming the first field that differs.
absl::Status SameLayout(const KvLayout& known, const KvLayout& given);

v1::BlockRef RefOf(const BlockId& id);
// The same into one whose memory is kept.
void SetRef(const BlockId& id, v1::BlockRef* ref);
absl::StatusOr<BlockId> BlockOf(const v1::BlockRef& ref);
// All zero when it has none.
absl::StatusOr<BlockKey> ParentOf(const v1::BlockFrame& frame);
// That of the hello when it has none.
absl::StatusOr<std::string> TenantOfFrame(const v1::BlockFrame& frame, const std::string& tenant_of_hello);
absl::StatusOr<RowSelection> SelectionOf(const v1::RowSelectionRef& ref);

// Of each frame but the last of a value: as few as kMaxFrameBytes allows, all of nearly one size. At least 1.
size_t FrameBytesFor(size_t value_bytes);

// InvalidArgument (naming `field`) when the payload is larger than kMaxFrameBytes, DataLoss when its checksum differs.
// nullopt: it has none.
absl::Status CheckFrame(std::string_view field, std::string_view payload, std::optional<uint32_t> checksum);

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_WIRE_MESSAGES_H_
