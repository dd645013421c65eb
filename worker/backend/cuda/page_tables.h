// Which pages a sequence's rows lie in, as the device sees it: one table for each (layer, kv head), kept up to date
// from HeadRows::TakeTouched.
#ifndef TIDEPOOL_WORKER_BACKEND_CUDA_PAGE_TABLES_H_
#define TIDEPOOL_WORKER_BACKEND_CUDA_PAGE_TABLES_H_

#include <vector>

#include "worker/backend/cuda/device_memory.h"
#include "worker/backend/cuda/device_pages.h"
#include "worker/kernels/cuda/move_rows_body.h"
#include "worker/kv/resident_rows.h"

namespace tidepool::cuda {

class PageTables final : public SequenceRows::DeviceState {
 public:
  PageTables(Device* device, const DevicePages* pages, const SequenceRows& rows)
      : pages_(pages), entries_(device), rows_(&rows) {}

  // Of these rows, made when there are none.
  static PageTables& Of(Device* device, const DevicePages& pages, const SequenceRows& rows);

  // Appends what has changed in a head, and says where its table is. Before it Reserve has been called.
  HeadPages Refresh(int layer, int kv_head, std::vector<UpdateEntries::Update>& updates);
  // Room for all heads as they are. May move the tables: updates appended before are void, and all heads are to be
  // refreshed.
  void Reserve();

 private:
  const DevicePages* const pages_;
  DeviceBuffer entries_;  // [layers][kv_heads][capacity_]
  const SequenceRows* const rows_;
  std::vector<int64_t> told_;  // by head: DevicePages::moves() when its entries were told, -1 when none were
  int32_t capacity_ = 0;
};

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_WORKER_BACKEND_CUDA_PAGE_TABLES_H_
