// The index of product codes (policies/recall/product_code.h): one bit per channel, 3.1 % of float16 keys and values,
// and tables.
//
// Rotated keys drift with their positions, so tables fit the stretch of tokens that they were learnt from: the blocks
// of a prompt make segments with tables of their own, learnt when the prompt is in. Until then keys are held as they
// are (float16). A few blocks, and what is decoded, are coded by the tables of the last segment.
#ifndef TIDEPOOL_WORKER_KV_PRODUCT_INDEX_H_
#define TIDEPOOL_WORKER_KV_PRODUCT_INDEX_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "policies/recall/product_code.h"
#include "worker/kv/key_index.h"

namespace tidepool {

class ProductIndex : public KeyIndex {
 public:
  ProductIndex(const KvLayout& layout, ProductShape shape);

  void AddBlock(int head, absl::Span<const float> keys, bool prompt) override;
  void Learn(int head, absl::Span<const float> weight) override;
  bool overdue() const override;
  void Score(int head, absl::Span<const float* const> queries, int32_t blocks, float* const* scores) const override;
  IndexCodes Codes(int head) const override;
  void ScoreUncoded(int head, absl::Span<const float* const> queries, int32_t blocks,
                    float* const* scores) const override;
  int64_t bytes() const override;
  int64_t table_bytes() const override;
  int64_t held_bytes() const override;
  void Save(ByteWriter& out) const override;
  bool Load(ByteReader& in) override;

 private:
  struct Segment {
    int32_t first_block = 0;
    ProductTables tables;
  };
  struct Head {
    std::vector<Segment> segments;  // by first block, the first one's is 0
    std::vector<uint8_t> codes;     // [block][tiles of 16 rows]
    std::vector<uint16_t> held;     // float16 keys of the blocks after them, [block][kBlockTokens][head_dim]
    int32_t restored_blocks = 0;    // so many were coded when the session was saved: they are again as they come
  };

  int32_t CodedBlocks(const Head& at) const { return static_cast<int32_t>(at.codes.size() / block_bytes_); }
  int32_t HeldBlocks(const Head& at) const;
  // Codes blocks, the next ones, by the segments that they lie in.
  void Code(Head& at, const float* keys, int32_t blocks) const;

  const ProductShape shape_;
  const size_t block_bytes_;
  std::vector<Head> heads_;
  mutable std::unique_ptr<IndexOnDevice> on_device_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_PRODUCT_INDEX_H_
