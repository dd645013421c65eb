#include "worker/kv/key_index.h"

#include "base/check.h"
#include "worker/kv/k4_index.h"
#include "worker/kv/plain_index.h"
#include "worker/kv/product_index.h"

namespace tidepool {

namespace {

// head_dim is a multiple of 16.
ProductShape ShapeOf(RecallIndex kind, int head_dim) {
  return kind == RecallIndex::kPq8x8 ? ProductShape{head_dim, head_dim / 8, 8}
                                     : ProductShape{head_dim, head_dim / 4, 4};
}

}  // namespace

std::unique_ptr<KeyIndex> MakeKeyIndex(RecallIndex kind, const KvLayout& layout, int group) {
  switch (kind) {
    case RecallIndex::kK4: return std::make_unique<K4Index>(layout, group);
    case RecallIndex::kPq8x8:
    case RecallIndex::kPq16x4: return std::make_unique<ProductIndex>(layout, ShapeOf(kind, layout.head_dim));
    case RecallIndex::kExact: return std::make_unique<ExactIndex>(layout);
    case RecallIndex::kPage8: return std::make_unique<PageIndex>(layout, 8);
    case RecallIndex::kPage16: return std::make_unique<PageIndex>(layout, 16);
  }
  TIDEPOOL_CHECK(false);  // validated
}

IndexSize IndexSizeOf(RecallIndex kind, const KvLayout& layout) {
  const double channels = static_cast<double>(layout.layers) * layout.kv_heads * layout.head_dim;
  switch (kind) {
    case RecallIndex::kK4: return {0, channels * (0.5 + 2.0 * sizeof(float) / kBlockTokens)};
    case RecallIndex::kPq8x8:
    case RecallIndex::kPq16x4: {
      const ProductShape shape = ShapeOf(kind, layout.head_dim);
      return {channels / layout.head_dim * static_cast<double>(shape.TableBytes()), channels / 8};
    }
    case RecallIndex::kExact: return {0, channels * 2};
    case RecallIndex::kPage8: return {0, channels * 4 / 8};
    case RecallIndex::kPage16: return {0, channels * 4 / 16};
  }
  TIDEPOOL_CHECK(false);  // validated
}

int LearningQueries(RecallIndex kind) { return kind == RecallIndex::kPq8x8 || kind == RecallIndex::kPq16x4 ? 32 : 0; }

}  // namespace tidepool
