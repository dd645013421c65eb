// A stored block value (policies/kv/block_codec.h): immutable, shared by whoever still reads it.
#ifndef TIDEPOOL_CACHESERVICE_TIERS_BLOCK_VALUE_H_
#define TIDEPOOL_CACHESERVICE_TIERS_BLOCK_VALUE_H_

#include <memory>
#include <string>

namespace tidepool {

using BlockValue = std::shared_ptr<const std::string>;  // null: a miss

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_TIERS_BLOCK_VALUE_H_
