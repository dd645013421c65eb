// A stored block value (policies/kv/block_codec.h): immutable, shared by whoever still reads it.
#ifndef TIDEPOOL_CACHESERVICE_TIERS_BLOCK_VALUE_H_
#define TIDEPOOL_CACHESERVICE_TIERS_BLOCK_VALUE_H_

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace tidepool {

struct BlockId;

using BlockValue = std::shared_ptr<const std::string>;  // null: a miss

// Every checksum of a value read as a whole, and that it is of id.layer. DataLoss saying what is wrong.
absl::Status VerifyBlockValue(const BlockId& id, std::string_view value);

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_BLOCK_VALUE_H_
