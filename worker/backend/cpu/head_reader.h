// Which lines of heads' pages a thread will read in a layer, for a ReadAhead: as the heads come in its order, and in
// each of them its pages.
#ifndef TIDEPOOL_WORKER_BACKEND_CPU_HEAD_READER_H_
#define TIDEPOOL_WORKER_BACKEND_CPU_HEAD_READER_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "worker/backend/cpu/page_memory.h"
#include "worker/kernels/cpu/read_ahead.h"
#include "worker/kv/resident_rows.h"

namespace tidepool {

class HeadReader {
 public:
  // memory: must outlive this.
  explicit HeadReader(const PageMemory& memory) : memory_(memory) {}
  HeadReader(const HeadReader&) = delete;
  HeadReader& operator=(const HeadReader&) = delete;

  void Clear();
  // Then this: of the head's slots, in the order in which attention reads them, [first, end). by_slot: that of slots;
  // else packed pages come before the others, as their rows are older. Its pages stay as they are until Clear.
  void Add(const HeadRows& rows, bool by_slot, int32_t first, int32_t end);
  size_t pieces() const { return pieces_.size(); }
  // The thread is about to read this piece. Valid until the next one.
  ReadAhead* Begin(size_t piece);

 private:
  struct Piece {
    const HeadRows* rows;
    bool by_slot;
    int32_t first, end;
    int64_t lines_before;  // of all runs before its own
    size_t run;            // its first
  };

  // Finds the next piece's runs.
  void Find();
  void FindPages(const Piece& piece, bool packed, int32_t& slot);

  const PageMemory& memory_;
  ReadAhead ahead_;
  std::vector<Piece> pieces_;
  std::vector<ReadAhead::Run> runs_;  // of the first `found_` pieces
  size_t found_ = 0;
  int64_t lines_ = 0;  // of all runs
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_BACKEND_CPU_HEAD_READER_H_
