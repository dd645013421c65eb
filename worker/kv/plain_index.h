// Two indexes to compare with: the keys themselves, which no index can beat (half of the keys and values), and the
// bounds of pages, the unit of Quest (arXiv 2406.10774), ArkVale and FreeKV.
#ifndef TIDEPOOL_WORKER_KV_PLAIN_INDEX_H_
#define TIDEPOOL_WORKER_KV_PLAIN_INDEX_H_

#include <vector>

#include "worker/kv/key_index.h"

namespace tidepool {

class ExactIndex : public KeyIndex {
 public:
  explicit ExactIndex(const KvLayout& layout);

  void AddBlock(int head, absl::Span<const float> keys, bool prompt) override;
  void Score(int head, absl::Span<const float* const> queries, int32_t blocks, float* const* scores) const override;
  int64_t bytes() const override;

 private:
  const int head_dim_;
  std::vector<std::vector<uint16_t>> keys_;  // by head: [token][head_dim], float16
};

// Smallest and largest value of each channel over `rows` neighbouring tokens, float16; all of them have the page's
// score, the largest that q.k can be within its bounds.
class PageIndex : public KeyIndex {
 public:
  // rows: divides kBlockTokens.
  PageIndex(const KvLayout& layout, int rows);

  void AddBlock(int head, absl::Span<const float> keys, bool prompt) override;
  void Score(int head, absl::Span<const float* const> queries, int32_t blocks, float* const* scores) const override;
  int64_t bytes() const override;

 private:
  const int head_dim_, rows_;
  std::vector<std::vector<uint16_t>> bounds_;  // by head: [page][low [head_dim], high [head_dim]]
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_PLAIN_INDEX_H_
