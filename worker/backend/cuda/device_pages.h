// Where the slot pages and packed pages of a PagePool lie in device memory.
//
// The memory is cut into slabs, each of which holds pages of one precision at a time. A page has a place in a slab from
// when the pool takes it into use until the pool gives its memory back. Where no slab is free though the budget is not
// used up, the pages of a slab with few of them move to others of their precision: some slabs more than the budget's
// bytes make that always possible.
#ifndef TIDEPOOL_WORKER_BACKEND_CUDA_DEVICE_PAGES_H_
#define TIDEPOOL_WORKER_BACKEND_CUDA_DEVICE_PAGES_H_

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "policies/kv/kv_layout.h"
#include "policies/kv/packed_page.h"
#include "worker/kernels/cuda/device.h"
#include "worker/kv/page_pool.h"

namespace tidepool::cuda {

class DevicePages {
 public:
  // Bytes of a page of each precision.
  static PageBytes BytesOf(const KvLayout& layout);
  // For a pool of `pages` slot pages. ResourceExhausted when the device has not got the memory.
  static absl::StatusOr<std::unique_ptr<DevicePages>> Create(Device* device, const KvLayout& layout, int32_t pages);
  ~DevicePages();
  DevicePages(const DevicePages&) = delete;
  DevicePages& operator=(const DevicePages&) = delete;

  PageMemoryView view() const { return {memory_, head_dim_}; }
  // Of a page that has one, in kPlaceBytes.
  uint32_t Place(KvPrecision precision, int32_t page) const { return kinds_[static_cast<int>(precision)].place[page]; }

  // Gives a page its place; `move` is to copy those that go elsewhere, before anything that follows on the device.
  using Move = absl::FunctionRef<void(absl::Span<const CopyPages::Copy> copies, size_t bytes_each)>;
  void Hold(KvPrecision precision, int32_t page, Move move);
  void Release(KvPrecision precision, absl::Span<const int32_t> pages);
  // Increases when pages have moved: what was derived from places is void.
  int64_t moves() const { return moves_; }

 private:
  struct Slab {
    int32_t used = 0;
    std::vector<int32_t> page;  // by place in it; -1: none
    std::vector<int32_t> free;  // places
  };
  struct Kind {
    size_t page_bytes = 0;
    int32_t pages_of_slab = 0;
    std::vector<uint32_t> place;  // by page
    std::vector<int32_t> slabs;   // of this precision
    std::vector<int32_t> open;    // of them those with a free place
    int64_t free = 0;             // places in them
  };

  DevicePages(Device* device, const KvLayout& layout, size_t slab_bytes, int32_t slabs, void* memory);
  // A place in a slab that has one.
  void Put(Kind& kind, int32_t page);
  void Remove(Kind& kind, int32_t page);
  void OpenSlab(Kind& kind);
  // Empties a slab of another precision than `wanted`.
  void MakeSlab(const Kind& wanted, Move move);
  uint32_t PlaceIn(const Kind& kind, int32_t slab, int32_t at) const {
    return static_cast<uint32_t>((static_cast<size_t>(slab) * slab_bytes_ + at * kind.page_bytes) / kPlaceBytes);
  }

  Device* const device_;
  const int32_t head_dim_;
  const size_t slab_bytes_;
  char* const memory_;
  std::array<Kind, kKvPrecisions> kinds_;
  std::vector<Slab> slabs_;
  std::vector<int32_t> free_slabs_;
  int64_t moves_ = 0;
};

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_WORKER_BACKEND_CUDA_DEVICE_PAGES_H_
