// Kernel tests run on the emulating host device, or on a GPU where TIDEPOOL_TEST_DEVICE names one (cuda:0) and the
// build has CUDA.
#ifndef TIDEPOOL_TESTS_WORKER_KERNELS_CUDA_DEVICE_FIXTURE_H_
#define TIDEPOOL_TESTS_WORKER_KERNELS_CUDA_DEVICE_FIXTURE_H_

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "worker/kernels/cuda/host_device.h"

namespace tidepool::cuda {

inline std::unique_ptr<Device> OpenTestDevice() {
#ifdef TIDEPOOL_CUDA
  if (const char* name = std::getenv("TIDEPOOL_TEST_DEVICE"); name != nullptr && std::strncmp(name, "cuda", 4) == 0) {
    auto device = OpenCudaDevice(std::strlen(name) > 5 ? std::atoi(name + 5) : 0);
    if (!device.ok()) {
      std::fprintf(stderr, "%s\n", std::string(device.status().message()).c_str());
      std::abort();
    }
    return *std::move(device);
  }
#endif
  return MakeHostDevice(2);
}

class DeviceTest : public testing::Test {
 protected:
  ~DeviceTest() override {
    for (void* memory : memory_) device_->Free(memory);
    for (void* memory : pinned_) device_->FreePinned(memory);
  }

  // An array on the device, of exactly these bytes: an access past its end is a fault of the emulator.
  template <class T>
  T* Upload(const std::vector<T>& values) {
    T* memory = Make<T>(values.size());
    if (values.empty()) return memory;
    void* pinned = Pinned(values.size() * sizeof(T));
    std::memcpy(pinned, values.data(), values.size() * sizeof(T));
    device_->CopyToDevice(memory, pinned, values.size() * sizeof(T));
    return memory;
  }
  // Of NaN bits.
  template <class T>
  T* Make(size_t count) {
    const size_t bytes = std::max<size_t>(1, count * sizeof(T));
    void* memory = *device_->Allocate(bytes);
    memory_.push_back(memory);
    void* pinned = Pinned(bytes);
    std::memset(pinned, 0xff, bytes);
    device_->CopyToDevice(memory, pinned, bytes);
    return static_cast<T*>(memory);
  }
  template <class T>
  std::vector<T> Download(const T* from, size_t count) {
    std::vector<T> values(count);
    void* pinned = Pinned(count * sizeof(T));
    device_->CopyToHost(pinned, from, count * sizeof(T));
    device_->Synchronize();
    std::memcpy(values.data(), pinned, count * sizeof(T));
    return values;
  }

  const std::unique_ptr<Device> device_ = OpenTestDevice();

 private:
  void* Pinned(size_t bytes) {
    pinned_.push_back(*device_->AllocatePinned(std::max<size_t>(1, bytes)));
    return pinned_.back();
  }

  std::vector<void*> memory_, pinned_;
};

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_TESTS_WORKER_KERNELS_CUDA_DEVICE_FIXTURE_H_
