#include "worker/kv/local_rows.h"

#include "base/check.h"
#include "base/limits.h"
#include "policies/kv/block_codec.h"
#include "worker/kv/block_log.h"

namespace tidepool {

void LocalRows::Begin(const BlockLog& log, int layer, int kv_head) {
  Clear();
  log_ = &log;
  layer_ = layer;
  kv_head_ = kv_head;
  row_bytes_ = log.layout().row_bytes();
  any_block_ = log.AnyWaiting();
  if (any_block_) blocks_.resize(log.full_blocks());
}

void LocalRows::Clear() { blocks_.clear(); }

const char* LocalRows::Find(int32_t position) {
  const int32_t index = position / kBlockTokens;
  const int token = position % kBlockTokens;
  if (index >= log_->full_blocks()) {
    return index == log_->full_blocks() && token < log_->tail_tokens()
               ? log_->TailRows(layer_, kv_head_) + token * row_bytes_
               : nullptr;
  }
  if (!any_block_) return nullptr;
  Block& block = blocks_[index];
  if (!block.looked_up) {
    block.looked_up = true;
    block.value = log_->Waiting(index, layer_);
    if (block.value == nullptr) return nullptr;
    TIDEPOOL_CHECK(block.value->size() == BlockValueBytes(log_->layout(), kBlockTokens));
    block.rows = RowsInBlock(log_->layout(), kBlockTokens, block.value->data(), kv_head_);
  }
  return block.rows != nullptr ? block.rows + token * row_bytes_ : nullptr;
}

}  // namespace tidepool
