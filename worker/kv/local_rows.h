// Rows of one (layer, kv head) of a block log that are in host memory still: of the block being filled, and of blocks
// that the cache service has not acknowledged. They are read where they lie; while the service is slow, a choice reads
// hundreds.
#ifndef TIDEPOOL_WORKER_KV_LOCAL_ROWS_H_
#define TIDEPOOL_WORKER_KV_LOCAL_ROWS_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace tidepool {

class BlockLog;

class LocalRows {
 public:
  // What was found of another one is let go.
  void Begin(const BlockLog& log, int layer, int kv_head);
  // The row, or null. It stays where it is until Begin or Clear, acknowledged or not, as long as the log takes no
  // tokens.
  const char* Find(int32_t position);
  void Clear();

 private:
  struct Block {
    bool looked_up = false;
    std::shared_ptr<const std::string> value;
    const char* rows = nullptr;  // of the kv head; null: not here
  };

  const BlockLog* log_ = nullptr;
  int layer_ = 0, kv_head_ = 0;
  size_t row_bytes_ = 0;
  bool any_block_ = false;     // a full one is not acknowledged
  std::vector<Block> blocks_;  // full ones; kept for its memory
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KV_LOCAL_ROWS_H_
