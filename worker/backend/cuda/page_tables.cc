#include "worker/backend/cuda/page_tables.h"

#include <algorithm>

namespace tidepool::cuda {
namespace {

static_assert(kSlotsOfPage == kPageSlots);
constexpr int32_t kLeastCapacity = 64;

}  // namespace

PageTables& PageTables::Of(Device* device, const DevicePages& pages, const SequenceRows& rows) {
  std::unique_ptr<SequenceRows::DeviceState>& state = rows.device_state();
  if (state == nullptr) state = std::make_unique<PageTables>(device, &pages, rows);
  return static_cast<PageTables&>(*state);
}

void PageTables::Reserve() {
  int32_t most = 1;
  for (int layer = 0; layer < rows_->layers(); ++layer) {
    for (int kv_head = 0; kv_head < rows_->kv_heads(); ++kv_head) {
      most = std::max(most, static_cast<int32_t>(rows_->head(layer, kv_head).pages().size()));
    }
  }
  if (most <= capacity_) return;
  capacity_ = std::max(kLeastCapacity, most + most / 2);
  const size_t heads = static_cast<size_t>(rows_->layers()) * rows_->kv_heads();
  entries_.Get<PageEntry>(heads * capacity_);
  told_.assign(heads, -1);
}

HeadPages PageTables::Refresh(int layer, int kv_head, std::vector<UpdateEntries::Update>& updates) {
  const HeadRows& head = rows_->head(layer, kv_head);
  const size_t index = static_cast<size_t>(layer) * rows_->kv_heads() + kv_head;
  const auto pages = static_cast<int32_t>(head.pages().size());
  TIDEPOOL_CHECK(pages <= capacity_);
  PageEntry* table = entries_.As<PageEntry>() + index * capacity_;
  const int32_t touched = head.TakeTouched();
  for (int32_t p = told_[index] != pages_->moves() ? 0 : touched; p < pages; ++p) {
    const SlotPage& page = head.pages()[p];
    PageEntry entry;
    if (page.page >= 0) {
      entry = {.place = pages_->Place(page.precision, page.page), .precision = page.precision, .half = page.half};
      for (int32_t i = 0; i < kPageSlots; ++i) {
        entry.valid = static_cast<uint16_t>(entry.valid | (head.position(p * kPageSlots + i) >= 0) << i);
      }
    }
    updates.push_back({table + p, entry});
  }
  told_[index] = pages_->moves();
  return {table, pages, 0};
}

}  // namespace tidepool::cuda
