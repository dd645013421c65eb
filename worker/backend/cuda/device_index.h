// The codes and tables of a recall index in device memory, told what has been appended before each scan.
#ifndef TIDEPOOL_WORKER_BACKEND_CUDA_DEVICE_INDEX_H_
#define TIDEPOOL_WORKER_BACKEND_CUDA_DEVICE_INDEX_H_

#include <cstdint>
#include <vector>

#include "worker/backend/cuda/device_memory.h"
#include "worker/backend/index_scan.h"

namespace tidepool::cuda {

// Device memory that indexes may take beside the pages: what steps need is left alone.
struct IndexRoom {
  size_t bytes = 0, used = 0;
};

class DeviceIndex final : public IndexOnDevice {
 public:
  DeviceIndex(Device* device, IndexRoom* room, int heads) : device_(device), room_(room), told_(heads) {}
  ~DeviceIndex() override;
  DeviceIndex(const DeviceIndex&) = delete;
  DeviceIndex& operator=(const DeviceIndex&) = delete;

  // Of this index, made when there is none.
  static DeviceIndex& Of(Device* device, IndexRoom* room, const IndexCodes& index);

  // Makes room for all heads to be like this one, if there is any. What was told before may be void.
  void Reserve(const IndexCodes& index);
  bool Fits(const IndexCodes& index) const {
    return index.codes.size() <= codes_.each && TablesOf(index) <= tables_.each;
  }
  // Copies what is new in a head, by way of `pinned`.
  void Tell(const IndexCodes& index, DeviceBuffer& pinned);
  const uint8_t* codes(int head) const { return codes_.data + head * codes_.each; }
  const char* tables(int head) const { return reinterpret_cast<const char*>(tables_.data + head * tables_.each); }

 private:
  struct Memory {
    uint8_t* data = nullptr;
    size_t each = 0;  // bytes of a head
  };
  struct Told {
    size_t codes = 0, segments = 0;
  };

  static size_t TablesOf(const IndexCodes& index);
  void Grow(Memory& memory, size_t each);
  void Free(Memory& memory);

  Device* const device_;
  IndexRoom* const room_;
  Memory codes_, tables_;
  std::vector<Told> told_;  // by head
};

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_WORKER_BACKEND_CUDA_DEVICE_INDEX_H_
