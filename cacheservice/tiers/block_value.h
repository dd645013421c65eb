// A stored block value (policies/kv/block_codec.h): immutable, shared by whoever still reads it.
#ifndef TIDEPOOL_CACHESERVICE_TIERS_BLOCK_VALUE_H_
#define TIDEPOOL_CACHESERVICE_TIERS_BLOCK_VALUE_H_

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace tidepool {

struct BlockId;

inline constexpr size_t kMaxBlockValueBytes = size_t{8} << 20;

using BlockValue = std::shared_ptr<const std::string>;  // null: a miss

// What a producer must have done right; its checksums too, so that damage on the way is noticed while he still has the
// rows. InvalidArgument: larger than kMaxBlockValueBytes, or not of id.layer. DataLoss: not whole.
absl::Status CheckNewBlockValue(const BlockId& id, std::string_view value);

// Every checksum of a value read as a whole, and that it is of id.layer. DataLoss saying what is wrong.
absl::Status VerifyBlockValue(const BlockId& id, std::string_view value);

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_BLOCK_VALUE_H_
