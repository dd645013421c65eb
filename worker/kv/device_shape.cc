#include "worker/kv/device_shape.h"

#include "worker/kv/key_index.h"

namespace tidepool {

DeviceShape DeviceShapeOf(const KvLayout& layout, const CompressionSpec& spec) {
  DeviceShape shape;
  shape.layers = layout.layers;
  shape.kv_heads = layout.kv_heads;
  shape.row_bytes = shape.full_row_bytes = static_cast<double>(layout.row_bytes());
  const RecallSpec& recall = spec.recall;
  if (recall.mode != RecallMode::kOff && recall.placement == IndexPlacement::kDevice) {
    const IndexSize index = IndexSizeOf(recall.index, layout);
    shape.index_fixed_bytes = index.table_bytes;
    shape.index_bytes_per_token = index.bytes_per_token;
    if (recall.trigger == RecallTrigger::kCosine) {
      shape.index_bytes_per_token += static_cast<double>(shape.heads()) * sizeof(float);  // the keys' lengths
    }
  }
  return shape;
}

}  // namespace tidepool
