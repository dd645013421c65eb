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
  // This head comes then. by_slot: its rows are read as they lie; else packed pages come before the others, as their
  // rows are older. Its pages stay as they are until Clear.
  void Add(const HeadRows& rows, bool by_slot);
  // The thread is about to read the index-th head. Valid until the next one.
  ReadAhead* Begin(size_t index);

 private:
  struct Head {
    const HeadRows* rows;
    bool by_slot;
    int64_t lines_before;  // of all runs before its own
    size_t run;            // its first
  };
  enum class Pages : uint8_t { kAll, kPacked, kPlain };

  // Finds the next head's runs.
  void Find();
  void FindPages(const HeadRows& rows, Pages which);
  void AddRun(int32_t page, int32_t count, KvPrecision precision);

  const PageMemory& memory_;
  ReadAhead ahead_;
  std::vector<Head> heads_;
  std::vector<ReadAhead::Run> runs_;  // of the first `found_` heads
  size_t found_ = 0;
  int64_t lines_ = 0;  // of all runs
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_BACKEND_CPU_HEAD_READER_H_
