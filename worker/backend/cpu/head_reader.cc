#include "worker/backend/cpu/head_reader.h"

#include "base/limits.h"

namespace tidepool {
namespace {

constexpr int kLine = 64;  // bytes
// Asked for and not read yet. Keys of a part are read twice as fast as what lies between and beside them is asked for,
// so it must be half a part more than memory is far: 512 and 768 lines were too few, 3,072 too many.
constexpr int32_t kLead = 1536;

}  // namespace

void HeadReader::Clear() {
  pieces_.clear();
  runs_.clear();
  found_ = 0;
  lines_ = 0;
  ahead_ = ReadAhead();
}

void HeadReader::Add(const HeadRows& rows, bool by_slot, int32_t first, int32_t end) {
  pieces_.push_back({&rows, by_slot, first, end, 0, 0});
}

void HeadReader::FindPages(const Piece& piece, bool packed, int32_t& slot) {
  for (const SlotPage& page : piece.rows->pages()) {
    if (slot >= piece.end) return;
    const bool is_packed = page.precision != KvPrecision::kF16;
    if (page.page < 0 || page.half != 0 || (!piece.by_slot && is_packed != packed)) continue;
    const int32_t first = slot;
    slot += is_packed ? kGroupTokens : kPageSlots;
    if (first < piece.first) continue;
    const char* at = memory_.page(page.page, page.precision);
    const auto lines = static_cast<int32_t>(memory_.page_bytes(page.precision) / kLine);
    lines_ += lines;
    if (runs_.size() > piece.run && runs_.back().at + int64_t{runs_.back().lines} * kLine == at) {
      runs_.back().lines += lines;
    } else {
      runs_.push_back({at, lines});
    }
  }
}

void HeadReader::Find() {
  Piece& piece = pieces_[found_++];
  piece.lines_before = lines_;
  piece.run = runs_.size();
  int32_t slot = 0;
  if (!piece.by_slot && !piece.rows->groups().empty()) FindPages(piece, /*packed=*/true, slot);
  FindPages(piece, /*packed=*/false, slot);
}

ReadAhead* HeadReader::Begin(size_t piece) {
  // Where the last one has come to.
  size_t run = ahead_.run - runs_.data();
  if (ahead_.run == nullptr) run = 0;
  while (found_ <= piece) Find();
  while (found_ < pieces_.size() && (found_ == piece + 1 || lines_ - pieces_[piece + 1].lines_before < kLead)) Find();
  if (run < pieces_[piece].run) {
    run = pieces_[piece].run;
    ahead_.asked = 0;
  }
  ahead_.run = runs_.data() + run;
  ahead_.end = runs_.data() + runs_.size();
  ahead_.most = kLead;
  ahead_.lead = ahead_.asked;
  for (size_t i = pieces_[piece].run; i < run; ++i) ahead_.lead += runs_[i].lines;
  return &ahead_;
}

}  // namespace tidepool
