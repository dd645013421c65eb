// Shape and element type of the keys and values of a model: what a block, a row and a slot page are made of.
// A row is the K row followed by the V row of one token in one (layer, kv head): [2, head_dim] elements.
#ifndef TIDEPOOL_POLICIES_KV_KV_LAYOUT_H_
#define TIDEPOOL_POLICIES_KV_KV_LAYOUT_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/limits.h"

namespace tidepool {

enum class KvType : uint8_t { kF16 = 1, kF32 = 2 };  // values are part of the block format

inline constexpr size_t ElementBytes(KvType type) { return type == KvType::kF16 ? 2 : 4; }

struct KvLayout {
  std::string model_fingerprint;  // hex SHA-256 of what determines the keys and values (config, tensors, rope)
  int layers = 0;
  int kv_heads = 0;
  int head_dim = 0;  // elements of one K (or V) row
  KvType type = KvType::kF16;

  size_t row_bytes() const { return 2 * static_cast<size_t>(head_dim) * ElementBytes(type); }
  // All kv heads of one token in one layer.
  size_t token_layer_bytes() const { return row_bytes() * kv_heads; }
  size_t token_bytes() const { return token_layer_bytes() * layers; }

  friend bool operator==(const KvLayout&, const KvLayout&) = default;
};

}  // namespace tidepool

#endif  // TIDEPOOL_POLICIES_KV_KV_LAYOUT_H_
