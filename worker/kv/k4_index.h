// The index of 4-bit keys (policies/recall/k4_code.h): a range for each channel and block. 15.6 % of float16 keys and
// values; answers nearly as exact keys do.
#ifndef TIDEPOOL_WORKER_KV_K4_INDEX_H_
#define TIDEPOOL_WORKER_KV_K4_INDEX_H_

#include <vector>

#include "worker/kv/key_index.h"

namespace tidepool {

class K4Index : public KeyIndex {
 public:
  K4Index(const KvLayout& layout, int group);

  void AddBlock(int head, absl::Span<const float> keys, bool prompt) override;
  void Score(int head, absl::Span<const float* const> queries, int32_t blocks, float* const* scores) const override;
  int64_t bytes() const override;

 private:
  struct Head {
    std::vector<uint8_t> codes;  // [block][kBlockTokens / 16 tiles][head_dim][8]
    std::vector<float> ranges;   // [block][minimum [head_dim], scale [head_dim]]
  };

  const int head_dim_;
  std::vector<Head> heads_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_K4_INDEX_H_
