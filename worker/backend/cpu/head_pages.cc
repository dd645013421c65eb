#include "worker/backend/cpu/head_pages.h"

namespace tidepool {

void HeadPages::Find(const PageMemory& memory, const std::vector<PackedPage>& layouts, const HeadRows& head,
                     bool by_slot) {
  addresses_.clear();
  halves_.clear();
  packed_ = KvPrecision::kF16;
  layout_ = nullptr;
  for (const SlotPage& page : head.pages()) {
    addresses_.push_back(page.page < 0 ? nullptr : memory.page(page.page, page.precision));
  }
  by_slot_ = by_slot && !head.in_order();
  in_order_ = head.in_order();
  if (by_slot_) {
    taken_.resize(head.slots() + 1);
    int32_t taken = 0;
    for (int32_t slot = 0; slot < head.slots(); ++slot) {
      taken_[taken] = slot;
      taken += static_cast<int32_t>(head.position(slot) >= 0);
    }
    in_order_ = taken > 0 && taken_[taken - 1] == taken - 1;
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
  task.order = in_order_ ? nullptr : by_slot_ ? taken_.data() : head.order().data();
  task.rows = head.rows();
  task.slots = in_order_ ? head.rows() : head.slots();
}

}  // namespace tidepool
