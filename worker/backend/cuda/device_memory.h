// Memory of a device that grows with what is asked of it, and small host arrays on their way to the device.
#ifndef TIDEPOOL_WORKER_BACKEND_CUDA_DEVICE_MEMORY_H_
#define TIDEPOOL_WORKER_BACKEND_CUDA_DEVICE_MEMORY_H_

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

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
    device_->SynchronizeAside();
    pinned_ ? device_->FreePinned(data_) : device_->Free(data_);
    data_ = nullptr;
    bytes_ = 0;
  }

  Device* const device_;
  const bool pinned_;
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

// Small arrays to the device without waiting. Between Hold and Release they all stay there; else until many more have
// followed.
class Uploads {
 public:
  explicit Uploads(Device* device) : device_(device) {}

  // The device has nothing to do.
  void Hold() {
    if (parts_.size() > 1) {  // the last one is the largest
      parts_.erase(parts_.begin(), parts_.end() - 1);
    }
    used_ = 0;
    holding_ = true;
  }
  void Release() { holding_ = false; }
  bool holding() const { return holding_; }

  template <class T>
  T* Upload(absl::Span<const T> values) {
    if (values.empty()) return nullptr;
    const size_t bytes = (values.size() * sizeof(T) + 255) / 256 * 256;
    if (parts_.empty() || used_ + bytes > parts_.back()->bytes) MakeRoom(bytes);
    const Part& part = *parts_.back();
    char* from = part.host.As<char>() + used_;
    char* to = part.on_device.As<char>() + used_;
    used_ += bytes;
    std::memcpy(from, values.data(), values.size() * sizeof(T));
    device_->CopyToDevice(to, from, values.size() * sizeof(T));
    return reinterpret_cast<T*>(to);
  }

 private:
  static constexpr size_t kLeastBytes = size_t{4} << 20;
  struct Part {
    Part(Device* device, size_t size) : host(device, true), on_device(device), bytes(size) {
      host.Get<char>(size);
      on_device.Get<char>(size);
    }
    DeviceBuffer host, on_device;
    const size_t bytes;
  };

  void MakeRoom(size_t bytes) {
    const size_t last = parts_.empty() ? 0 : parts_.back()->bytes;
    if (!holding_ && 2 * bytes <= last) {
      device_->Synchronize();  // what was uploaded has been read
    } else {
      // What was uploaded for the same launch may lie in the last one.
      if (!holding_ && parts_.size() > 1) parts_.erase(parts_.begin(), parts_.end() - 1);
      parts_.push_back(std::make_unique<Part>(device_, std::max({kLeastBytes, 2 * last, 4 * bytes})));
    }
    used_ = 0;
  }

  Device* const device_;
  std::vector<std::unique_ptr<Part>> parts_;  // the last is being filled
  size_t used_ = 0;                           // bytes of the last
  bool holding_ = false;
};

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_WORKER_BACKEND_CUDA_DEVICE_MEMORY_H_
