// Memory of a device that grows with what is asked of it, and small host arrays on their way to the device.
#ifndef TIDEPOOL_WORKER_BACKEND_CUDA_DEVICE_MEMORY_H_
#define TIDEPOOL_WORKER_BACKEND_CUDA_DEVICE_MEMORY_H_

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <utility>

#include "absl/types/span.h"
#include "base/check.h"
#include "worker/kernels/cuda/device.h"

namespace tidepool::cuda {

// Keeps its memory from step to step; what it held is lost when it grows. Running out ends the process: what steps need
// beside weights and pages is bounded, and was left free at the start.
class DeviceBuffer {
 public:
  explicit DeviceBuffer(Device* device, bool pinned = false) : device_(device), pinned_(pinned) {}
  ~DeviceBuffer() { Release(); }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;

  // At least `count` elements.
  template <class T>
  T* Get(size_t count) {
    const size_t bytes = count * sizeof(T);
    if (bytes > bytes_) {
      Release();
      bytes_ = std::max<size_t>(256, bytes + bytes / 4);
      absl::StatusOr<void*> memory = pinned_ ? device_->AllocatePinned(bytes_) : device_->Allocate(bytes_);
      if (!memory.ok()) Fail(memory.status());
      data_ = *memory;
    }
    return static_cast<T*>(data_);
  }
  template <class T>
  T* As() const {
    return static_cast<T*>(data_);
  }

 private:
  [[noreturn]] static void Fail(const absl::Status& status) {
    std::fprintf(stderr, "cuda: %s\n", std::string(status.message()).c_str());
    std::abort();
  }
  void Release() {
    if (data_ == nullptr) return;
    device_->Synchronize();
    pinned_ ? device_->FreePinned(data_) : device_->Free(data_);
    data_ = nullptr;
    bytes_ = 0;
  }

  Device* const device_;
  const bool pinned_;
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

// Small arrays to the device without waiting. They stay there until as many bytes as the ring holds have followed.
class UploadRing {
 public:
  explicit UploadRing(Device* device) : device_(device), host_(device, true), on_device_(device) {}

  template <class T>
  T* Upload(absl::Span<const T> values) {
    if (values.empty()) return nullptr;
    const size_t bytes = (values.size() * sizeof(T) + 255) / 256 * 256;
    if (at_ + bytes > size_) {
      device_->Synchronize();  // what was uploaded has been read
      at_ = 0;
      if (2 * bytes > size_) size_ = std::max<size_t>(size_t{4} << 20, 4 * bytes);
      host_.Get<char>(size_);
      on_device_.Get<char>(size_);
    }
    char* from = host_.As<char>() + at_;
    char* to = on_device_.As<char>() + at_;
    at_ += bytes;
    std::memcpy(from, values.data(), values.size() * sizeof(T));
    device_->CopyToDevice(to, from, values.size() * sizeof(T));
    return reinterpret_cast<T*>(to);
  }

 private:
  Device* const device_;
  DeviceBuffer host_, on_device_;
  size_t size_ = 0, at_ = 0;
};

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_WORKER_BACKEND_CUDA_DEVICE_MEMORY_H_
