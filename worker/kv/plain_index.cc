#include "worker/kv/plain_index.h"

#include <algorithm>

#include "base/limits.h"
#include "worker/kernels/cpu/attention.h"

namespace tidepool {
namespace {

int64_t Bytes(const std::vector<std::vector<uint16_t>>& heads) {
  size_t elements = 0;
  for (const std::vector<uint16_t>& head : heads) elements += head.size();
  return static_cast<int64_t>(elements * sizeof(uint16_t));
}

void Append(const std::vector<float>& values, std::vector<uint16_t>& to) {
  to.resize(to.size() + values.size());
  FloatToHalf(values.data(), static_cast<int64_t>(values.size()), to.data() + to.size() - values.size());
}

}  // namespace

ExactIndex::ExactIndex(const KvLayout& layout)
    : head_dim_(layout.head_dim), keys_(static_cast<size_t>(layout.layers) * layout.kv_heads) {}

void ExactIndex::AddBlock(int head, absl::Span<const float> keys, bool /*prompt*/) {
  Append({keys.begin(), keys.end()}, keys_[head]);
}

void ExactIndex::Score(int head, absl::Span<const float* const> queries, int32_t blocks, float* const* scores) const {
  std::vector<float> key(head_dim_);
  for (int32_t token = 0; token < blocks * kBlockTokens; ++token) {
    HalfToFloat(keys_[head].data() + static_cast<size_t>(token) * head_dim_, head_dim_, key.data());
    for (size_t i = 0; i < queries.size(); ++i) {
      float dot = 0;
      for (int c = 0; c < head_dim_; ++c) dot += queries[i][c] * key[c];
      scores[i][token] = dot;
    }
  }
}

int64_t ExactIndex::bytes() const { return Bytes(keys_); }

PageIndex::PageIndex(const KvLayout& layout, int rows)
    : head_dim_(layout.head_dim), rows_(rows), bounds_(static_cast<size_t>(layout.layers) * layout.kv_heads) {}

void PageIndex::AddBlock(int head, absl::Span<const float> keys, bool /*prompt*/) {
  std::vector<float> bounds(2 * head_dim_);
  for (int page = 0; page < kBlockTokens / rows_; ++page) {
    for (int c = 0; c < head_dim_; ++c) {
      float low = keys[static_cast<size_t>(page) * rows_ * head_dim_ + c], high = low;
      for (int row = 1; row < rows_; ++row) {
        const float x = keys[(static_cast<size_t>(page) * rows_ + row) * head_dim_ + c];
        low = std::min(low, x);
        high = std::max(high, x);
      }
      bounds[c] = low;
      bounds[head_dim_ + c] = high;
    }
    Append(bounds, bounds_[head]);
  }
}

void PageIndex::Score(int head, absl::Span<const float* const> queries, int32_t blocks, float* const* scores) const {
  std::vector<float> bounds(2 * head_dim_);
  for (int32_t page = 0; page < blocks * kBlockTokens / rows_; ++page) {
    HalfToFloat(bounds_[head].data() + static_cast<size_t>(page) * 2 * head_dim_, 2 * head_dim_, bounds.data());
    for (size_t i = 0; i < queries.size(); ++i) {
      float bound = 0;
      for (int c = 0; c < head_dim_; ++c) {
        bound += std::max(queries[i][c] * bounds[c], queries[i][c] * bounds[head_dim_ + c]);
      }
      std::fill_n(scores[i] + static_cast<size_t>(page) * rows_, rows_, bound);
    }
  }
}

int64_t PageIndex::bytes() const { return Bytes(bounds_); }

}  // namespace tidepool
