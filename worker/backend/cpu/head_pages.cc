#include "worker/backend/cpu/head_pages.h"

namespace tidepool {

void HeadPages::Find(const PageMemory& memory, const std::vector<PackedPage>& layouts, const HeadRows& head) {
  addresses_.clear();
  halves_.clear();
  packed_ = KvPrecision::kF16;
  layout_ = nullptr;
  for (const SlotPage& page : head.pages()) {
    addresses_.push_back(page.page < 0 ? nullptr : memory.page(page.page, page.precision));
  }
  if (head.groups().empty()) return;
  packed_ = head.groups().front().precision;
  layout_ = &layouts[static_cast<int>(packed_)];
  for (const SlotPage& page : head.pages()) {
    halves_.push_back(page.precision == KvPrecision::kF16 ? 0 : static_cast<uint8_t>(1 + page.half));
  }
}

void HeadPages::SetIn(const HeadRows& head, AttentionTask& task) const {
  task.pages = addresses_.data();
  task.halves = halves_.empty() ? nullptr : halves_.data();
  task.packed = packed_;
  task.packed_layout = layout_;
  task.order = head.in_order() ? nullptr : head.order().data();
  task.rows = head.rows();
  task.slots = head.in_order() ? head.rows() : head.slots();
}

}  // namespace tidepool
