#include "worker/kv/row_staging.h"

#include <cstring>
#include <utility>

#include "base/check.h"

namespace tidepool {

RowStaging::RowStaging(int heads, size_t row_bytes, std::shared_ptr<ChunkMemory> memory)
    : row_bytes_(row_bytes),
      heads_(heads),
      memory_(memory != nullptr ? std::move(memory) : std::make_shared<ChunkMemory>(ChunkBytes(row_bytes))) {
  TIDEPOOL_CHECK(memory_->chunk_bytes() == ChunkBytes(row_bytes));
}

void RowStaging::Clear() {
  for (Head& head : heads_) {
    memory_->Give(head.chunks);
    head = Head();
  }
}

bool RowStaging::Note(int head, int32_t position, bool wanted) {
  std::vector<int32_t>& slot_of = heads_[head].slot_of;
  if (slot_of.size() <= static_cast<size_t>(position)) slot_of.resize(position + 1, kAbsent);
  if (slot_of[position] != kAbsent) return wanted && slot_of[position] == kNoted;
  slot_of[position] = kNoted;
  return true;
}

bool RowStaging::Ask(int head, int32_t position) {
  if (StateOf(head, position) != kNoted) return false;
  heads_[head].slot_of[position] = kAsked;
  return true;
}

void RowStaging::Forget(int head, int32_t position) {
  const int32_t state = StateOf(head, position);
  if (state == kNoted || state == kAsked) heads_[head].slot_of[position] = kAbsent;
}

const char* RowStaging::Find(int head, int32_t position) {
  if (!Has(head, position)) return nullptr;
  Head& at = heads_[head];
  const int32_t slot = at.slot_of[position];
  at.used[slot] = 1;
  return reinterpret_cast<const char*>(RowAt(at, slot));
}

void RowStaging::Put(int head, int32_t position, const char* row) {
  Head& at = heads_[head];
  if (Has(head, position)) return;
  if (capacity_ == 0) return Forget(head, position);
  size_t slot = at.position.size();
  if (slot < static_cast<size_t>(capacity_)) {
    at.position.push_back(position);
    at.used.push_back(0);
    if (slot % kChunkRows == 0) at.chunks.push_back(memory_->Take());
  } else {
    while (at.used[at.hand] != 0) {
      at.used[at.hand] = 0;
      at.hand = (at.hand + 1) % at.position.size();
    }
    slot = at.hand;
    at.hand = (at.hand + 1) % at.position.size();
    at.slot_of[at.position[slot]] = kAbsent;
    at.position[slot] = position;
  }
  std::memcpy(RowAt(at, static_cast<int32_t>(slot)), row, row_bytes_);
  if (at.slot_of.size() <= static_cast<size_t>(position)) at.slot_of.resize(position + 1, kAbsent);
  at.slot_of[position] = static_cast<int32_t>(slot);
}

int64_t RowStaging::bytes() const {
  int64_t bytes = 0;
  for (const Head& head : heads_) bytes += static_cast<int64_t>(head.position.size() * row_bytes_);
  return bytes;
}

}  // namespace tidepool
