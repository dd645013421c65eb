#include "worker/kv/k4_index.h"

#include "base/check.h"
#include "base/limits.h"
#include "policies/recall/k4_code.h"
#include "worker/kernels/cpu/recall_scan.h"

namespace tidepool {

K4Index::K4Index(const KvLayout& layout, int group)
    : head_dim_(layout.head_dim), heads_(static_cast<size_t>(layout.layers) * layout.kv_heads) {
  TIDEPOOL_CHECK(group >= 1 && group <= kMaxK4Queries);
}

void K4Index::AddBlock(int head, absl::Span<const float> keys, bool /*prompt*/) {
  Head& at = heads_[head];
  const size_t code_bytes = K4CodeBytes(kBlockTokens, head_dim_);
  at.codes.resize(at.codes.size() + code_bytes);
  at.ranges.resize(at.ranges.size() + 2 * head_dim_);
  float* ranges = at.ranges.data() + at.ranges.size() - 2 * head_dim_;
  EncodeK4(keys.data(), kBlockTokens, head_dim_, at.codes.data() + at.codes.size() - code_bytes, ranges,
           ranges + head_dim_);
}

void K4Index::Score(int head, absl::Span<const float* const> queries, int32_t blocks, float* const* scores) const {
  const Head& at = heads_[head];
  const size_t count = queries.size();
  std::vector<float> scaled(count * head_dim_), bias(count);
  std::vector<const float*> scaled_rows(count);
  std::vector<float*> out(count);
  for (int32_t block = 0; block < blocks; ++block) {
    const float* minimum = at.ranges.data() + static_cast<size_t>(block) * 2 * head_dim_;
    const float* scale = minimum + head_dim_;
    for (size_t i = 0; i < count; ++i) {
      float sum = 0;
      for (int c = 0; c < head_dim_; ++c) {
        sum += queries[i][c] * minimum[c];
        scaled[i * head_dim_ + c] = queries[i][c] * scale[c];
      }
      bias[i] = sum;
      scaled_rows[i] = scaled.data() + i * head_dim_;
      out[i] = scores[i] + block * kBlockTokens;
    }
    K4Task task;
    task.codes = at.codes.data() + K4CodeBytes(kBlockTokens, head_dim_) * block;
    task.tiles = K4Tiles(kBlockTokens);
    task.head_dim = head_dim_;
    task.queries = static_cast<int32_t>(count);
    task.scaled_query = scaled_rows.data();
    task.bias = bias.data();
    task.scores = out.data();
    ScoreK4Tiles(task);
  }
}

int64_t K4Index::bytes() const {
  int64_t bytes = 0;
  for (const Head& head : heads_) {
    bytes += static_cast<int64_t>(head.codes.size() + head.ranges.size() * sizeof(float));
  }
  return bytes;
}

}  // namespace tidepool
