#include "base/status_macros.h"
#include "cacheservice/tiers/tiered_store.h"

namespace tidepool {

absl::StatusOr<BlockLease> BlockLease::Take(TieredStore* store, const BlockId& id) {
  TP_RETURN_IF_ERROR(store->Pin(id));
  return BlockLease(store, id);
}

BlockLease::~BlockLease() {
  if (store_ != nullptr) store_->Unpin(id_);
}

}  // namespace tidepool
