#include "worker/backend/cpu/head_pages.h"

namespace tidepool {

void HeadPages::Find(const PageMemory& memory, const std::vector<PackedPage>& layouts, const HeadRows& head,
                     bool by_slot) {
  addresses_.clear();
  halves_.clear();
  packed_ = KvPrecision::kF16;
  layout_ = nullptr;
  bool plain = head.groups().empty();  // all slots are
  for (const SlotPage& page : head.pages()) {
    addresses_.push_back(page.page < 0 ? nullptr : memory.page(page.page, page.precision));
    plain = plain && page.precision == KvPrecision::kF16;
  }
  in_order_ = head.in_order();
  rows_ = head.rows();
  order_ = head.order().data();
  holes_ = {};
  if (by_slot && !in_order_ && plain) {
    // What is known of each slot is far, and few are free: those at the end are left out, the others are holes.
    holes_ = head.free_slots();
    rows_ = head.slots();
    for (; !holes_.empty() && holes_.front() == rows_ - 1; --rows_) holes_.remove_prefix(1);
    in_order_ = true;
  } else if (by_slot && !in_order_) {
    taken_.resize(head.slots() + 1);
    int32_t taken = 0;
    for (int32_t slot = 0; slot < head.slots(); ++slot) {
      taken_[taken] = slot;
      taken += static_cast<int32_t>(head.position(slot) >= 0);
    }
    in_order_ = taken > 0 && taken_[taken - 1] == taken - 1;
    order_ = taken_.data();
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
  task.order = in_order_ ? nullptr : order_;
  task.rows = rows_;
  task.slots = in_order_ ? rows_ : head.slots();
  task.holes = holes_.data();
  task.hole_count = static_cast<int32_t>(holes_.size());
}

}  // namespace tidepool
