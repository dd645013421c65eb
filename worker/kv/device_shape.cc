#include "worker/kv/device_shape.h"

namespace tidepool {

DeviceShape DeviceShapeOf(const KvLayout& layout, const CompressionSpec& spec) {
  DeviceShape shape;
  shape.layers = layout.layers;
  shape.kv_heads = layout.kv_heads;
  shape.row_bytes = shape.full_row_bytes = static_cast<double>(layout.row_bytes());
  const RecallSpec& recall = spec.recall;
  if (recall.mode != RecallMode::kOff && recall.placement == IndexPlacement::kDevice) {
    // 4-bit keys: half a byte for each channel, and minimum and scale of each channel and block.
    const double channel_bytes = 0.5 + 2.0 * sizeof(float) / kBlockTokens;
    shape.index_bytes_per_token = static_cast<double>(shape.heads()) * layout.head_dim * channel_bytes;
  }
  return shape;
}

}  // namespace tidepool
