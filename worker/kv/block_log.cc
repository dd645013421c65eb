#include "worker/kv/block_log.h"

#include <cstring>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "base/check.h"
#include "base/mutex.h"
#include "policies/kv/block_codec.h"

namespace tidepool {

// What acknowledgements touch, from the cache's threads, possibly after the log is gone.
struct BlockLog::Shared {
  mutable Mutex mutex;
  // (block, layer) -> value, until acknowledged.
  absl::flat_hash_map<std::pair<int32_t, int>, std::shared_ptr<const std::string>> waiting ABSL_GUARDED_BY(mutex);
  absl::flat_hash_set<std::pair<int32_t, int>> lost ABSL_GUARDED_BY(mutex);
  int64_t pending ABSL_GUARDED_BY(mutex) = 0;
  int64_t stored_bytes ABSL_GUARDED_BY(mutex) = 0;
  int64_t failed_blocks ABSL_GUARDED_BY(mutex) = 0;
  absl::Status first_failure ABSL_GUARDED_BY(mutex);
  std::function<void()> on_idle ABSL_GUARDED_BY(mutex);
};

BlockLog::BlockLog(const KvLayout& layout, BlockLogOptions options, BlockCache* cache)
    : layout_(layout),
      options_(std::move(options)),
      cache_(cache),
      tail_(layout.token_bytes() * kBlockTokens, '\0'),
      shared_(std::make_shared<Shared>()) {}

BlockLog::~BlockLog() { set_on_idle(nullptr); }

void BlockLog::AdoptStored(absl::Span<const BlockKey> keys, bool exact) {
  TIDEPOOL_CHECK(tail_ids_.empty());
  keys_.insert(keys_.end(), keys.begin(), keys.end());
  tokens_ += static_cast<int32_t>(keys.size()) * kBlockTokens;
  exact_ = exact_ && exact;
}

size_t BlockLog::TailOffset(int layer, int kv_head, int token) const {
  return ((static_cast<size_t>(layer) * layout_.kv_heads + kv_head) * kBlockTokens + token) * layout_.row_bytes();
}

std::string_view BlockLog::Lineage() const {
  return exact_ ? kExactLineage : std::string_view(options_.session_lineage);
}

void BlockLog::Append(absl::Span<const int32_t> token_ids, bool exact,
                      absl::FunctionRef<void(int layer, int kv_head, char* out)> fill) {
  TIDEPOOL_CHECK(static_cast<int>(token_ids.size()) <= room_in_tail());
  const int first = tail_tokens();
  for (int layer = 0; layer < layout_.layers; ++layer) {
    for (int kv_head = 0; kv_head < layout_.kv_heads; ++kv_head) {
      fill(layer, kv_head, tail_.data() + TailOffset(layer, kv_head, first));
    }
  }
  tail_ids_.insert(tail_ids_.end(), token_ids.begin(), token_ids.end());
  tokens_ += static_cast<int32_t>(token_ids.size());
  exact_ = exact_ && exact;
  if (static_cast<int>(tail_ids_.size()) < kBlockTokens) return;

  const int32_t block = full_blocks();
  const BlockKey key = TailKey();
  if (on_full_) {
    ParallelFor(int64_t{layout_.layers} * layout_.kv_heads, [&](int64_t head) {
      const int layer = static_cast<int>(head) / layout_.kv_heads, kv_head = static_cast<int>(head) % layout_.kv_heads;
      on_full_(block, layer, kv_head, tail_.data() + TailOffset(layer, kv_head, 0));
    });
  }
  if (cache_ != nullptr) {
    std::vector<std::string> values(layout_.layers);
    ParallelFor(layout_.layers, [&](int64_t layer) {
      values[layer] = BuildValue(static_cast<int>(layer), block * kBlockTokens, kBlockTokens);
    });
    for (int layer = 0; layer < layout_.layers; ++layer) Store(key, block, layer, std::move(values[layer]));
  }
  keys_.push_back(key);
  tail_ids_.clear();
}

void BlockLog::ParallelFor(int64_t count, absl::FunctionRef<void(int64_t)> body) const {
  if (parallel_for_) return parallel_for_(count, body);
  for (int64_t i = 0; i < count; ++i) body(i);
}

BlockKey BlockLog::TailKey() const {
  return ChildBlockKey(options_.tenant_salt, layout_, Lineage(), keys_.empty() ? BlockKey{} : keys_.back(), tail_ids_);
}

void BlockLog::StoreTail() {
  if (tail_ids_.empty() || cache_ == nullptr) return;
  const BlockKey key = TailKey();
  for (int layer = 0; layer < layout_.layers; ++layer) {
    Store(key, full_blocks(), layer,
          BuildValue(layer, full_blocks() * kBlockTokens, static_cast<int>(tail_ids_.size())));
  }
}

const char* BlockLog::TailRows(int layer, int kv_head) const { return tail_.data() + TailOffset(layer, kv_head, 0); }

std::string BlockLog::BuildValue(int layer, int32_t first_position, int tokens) const {
  BlockBuilder builder(layout_, layer, first_position, tokens);
  for (int kv_head = 0; kv_head < layout_.kv_heads; ++kv_head) {
    for (int token = 0; token < tokens; ++token) {
      std::memcpy(builder.MutableRow(kv_head, token), tail_.data() + TailOffset(layer, kv_head, token),
                  layout_.row_bytes());
    }
  }
  return std::move(builder).Finish();
}

void BlockLog::Store(const BlockKey& key, int32_t block, int layer, std::string value) {
  const std::pair<int32_t, int> id(block, layer);
  const int64_t bytes = static_cast<int64_t>(value.size());
  auto kept = std::make_shared<const std::string>(std::move(value));
  {
    MutexLock lock(&shared_->mutex);
    shared_->waiting[id] = kept;
    shared_->lost.erase(id);  // a fuller version replaces a tail that was refused
    ++shared_->pending;
  }
  cache_->Offload({key, layer}, *kept,
                  {.durable = options_.durable,
                   .parent = keys_.empty() ? BlockKey{} : keys_.back(),
                   .tenant = options_.tenant,
                   .may_wait = may_wait_},
                  [shared = shared_, kept, id, bytes](const absl::Status& status) {
                    MutexLock lock(&shared->mutex);
                    auto at = shared->waiting.find(id);
                    // A fuller version of a stored tail may be waiting under the same id by now.
                    const bool current = at != shared->waiting.end() && at->second == kept;
                    if (current) shared->waiting.erase(at);
                    if (status.ok()) {
                      shared->stored_bytes += bytes;
                    } else {
                      if (current) shared->lost.insert(id);
                      ++shared->failed_blocks;
                      if (shared->first_failure.ok()) shared->first_failure = status;
                    }
                    // Under the lock: who has taken on_idle away is not called any more.
                    if (--shared->pending == 0 && shared->on_idle) shared->on_idle();
                  });
}

std::shared_ptr<const std::string> BlockLog::Waiting(int32_t block, int layer) const {
  MutexLock lock(&shared_->mutex);
  const auto at = shared_->waiting.find({block, layer});
  return at != shared_->waiting.end() ? at->second : nullptr;
}

bool BlockLog::AnyWaiting() const {
  MutexLock lock(&shared_->mutex);
  return !shared_->waiting.empty();
}

bool BlockLog::IsLost(int32_t block, int layer) const {
  MutexLock lock(&shared_->mutex);
  return !shared_->lost.empty() && shared_->lost.contains({block, layer});
}

bool BlockLog::AnyLost() const {
  MutexLock lock(&shared_->mutex);
  return !shared_->lost.empty();
}

void BlockLog::MarkLost(int32_t block, int layer) {
  MutexLock lock(&shared_->mutex);
  if (!shared_->waiting.contains({block, layer})) shared_->lost.insert({block, layer});
}

bool BlockLog::IsStored(int32_t block, int layer) const {
  if (block >= full_blocks()) return false;
  MutexLock lock(&shared_->mutex);
  return !shared_->waiting.contains({block, layer}) && !shared_->lost.contains({block, layer});
}

int64_t BlockLog::pending() const {
  MutexLock lock(&shared_->mutex);
  return shared_->pending;
}

int64_t BlockLog::stored_bytes() const {
  MutexLock lock(&shared_->mutex);
  return shared_->stored_bytes;
}

void BlockLog::ResetStoredBytes() {
  MutexLock lock(&shared_->mutex);
  shared_->stored_bytes = 0;
}

int64_t BlockLog::failed_blocks() const {
  MutexLock lock(&shared_->mutex);
  return shared_->failed_blocks;
}

absl::Status BlockLog::first_failure() const {
  MutexLock lock(&shared_->mutex);
  return shared_->first_failure;
}

void BlockLog::set_on_idle(std::function<void()> on_idle) {
  MutexLock lock(&shared_->mutex);
  shared_->on_idle = std::move(on_idle);
}

}  // namespace tidepool
