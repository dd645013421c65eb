#include "worker/backend/cpu/head_reader.h"

namespace tidepool {
namespace {

// Asked for and not read yet. Keys of a part are read twice as fast as what lies between and beside them is asked for,
// so it must be half a part more than memory is far: 512 and 768 lines were too few, 3,072 too many.
constexpr int32_t kLead = 1536;

}  // namespace

void HeadReader::Clear() {
  heads_.clear();
  runs_.clear();
  found_ = 0;
  lines_ = 0;
  ahead_ = ReadAhead();
}

void HeadReader::Add(const HeadRows& rows, bool by_slot) { heads_.push_back({&rows, by_slot, 0, 0}); }

void HeadReader::AddRun(int32_t page, int32_t count, KvPrecision precision) {
  const auto lines = static_cast<int32_t>(memory_.page_bytes(precision) / ReadAhead::kLine) * count;
  runs_.push_back({memory_.page(page, precision), lines});
  lines_ += lines;
}

void HeadReader::FindPages(const HeadRows& rows, Pages which) {
  SlotPage run;  // its first page
  int32_t count = 0;
  for (const SlotPage& page : rows.pages()) {
    const Pages kind = page.precision == KvPrecision::kF16 ? Pages::kPlain : Pages::kPacked;
    if (page.page < 0 || page.half != 0 || (which != Pages::kAll && which != kind)) continue;
    if (count > 0 && (page.page != run.page + count || page.precision != run.precision)) {
      AddRun(run.page, count, run.precision);
      count = 0;
    }
    if (count++ == 0) run = page;
  }
  if (count > 0) AddRun(run.page, count, run.precision);
}

void HeadReader::Find() {
  Head& head = heads_[found_++];
  head.lines_before = lines_;
  head.run = runs_.size();
  if (head.by_slot || head.rows->groups().empty()) return FindPages(*head.rows, Pages::kAll);
  FindPages(*head.rows, Pages::kPacked);
  FindPages(*head.rows, Pages::kPlain);
}

ReadAhead* HeadReader::Begin(size_t index) {
  size_t run = ahead_.run == nullptr ? 0 : ahead_.run - runs_.data();  // where the last one has come to
  while (found_ <= index) Find();
  while (found_ < heads_.size() && (found_ == index + 1 || lines_ - heads_[index + 1].lines_before < kLead)) Find();
  if (run < heads_[index].run) {
    run = heads_[index].run;
    ahead_.asked = 0;
  }
  ahead_.run = runs_.data() + run;
  ahead_.end = runs_.data() + runs_.size();
  ahead_.most = kLead;
  ahead_.lead = ahead_.asked;
  for (size_t i = heads_[index].run; i < run; ++i) ahead_.lead += runs_[i].lines;
  return &ahead_;
}

}  // namespace tidepool
