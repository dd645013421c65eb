// What a row and the recall index take on the device: the one place that turns bytes into rows for the budget
// (policies/retain/budget_split.h). A row format or an index that takes less is said here.
#ifndef TIDEPOOL_WORKER_KV_DEVICE_SHAPE_H_
#define TIDEPOOL_WORKER_KV_DEVICE_SHAPE_H_

#include "policies/kv/kv_layout.h"
#include "policies/retain/budget_split.h"

namespace tidepool {

DeviceShape DeviceShapeOf(const KvLayout& layout, const CompressionSpec& spec);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_DEVICE_SHAPE_H_
