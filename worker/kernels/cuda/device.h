// What the CUDA backend needs of a GPU: memory, copies, launches, matrix products. All work of a device is in one
// order, that of the calls; only Synchronize waits for it. Implementations: a CUDA device, and the host
// (host_device.h), where every kernel body is run by the emulator.
//
// An error of the device, such as a kernel's fault or memory that ran out after the start, leaves nothing to go on
// with: it ends the process with what the runtime says. One caller at a time.
#ifndef TIDEPOOL_WORKER_KERNELS_CUDA_DEVICE_H_
#define TIDEPOOL_WORKER_KERNELS_CUDA_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "worker/kernels/cuda/kernel_list.h"

namespace tidepool::cuda {

// out[m][n] (+)= sum over k of a[m][k] * w[n][k], rows contiguous.
struct Product {
  bool halves = true;  // a and w; else float32
  const void* a = nullptr;
  const void* w = nullptr;
  float* out = nullptr;
  int m = 0, n = 0, k = 0;
  bool add = false;
};

struct DeviceFacts {
  std::string name;
  int multiprocessors = 1;
  int compute_capability = 0;  // 90: 9.0
  size_t total_bytes = 0, free_bytes = 0;
};

class Device {
 public:
  virtual ~Device() = default;
  virtual DeviceFacts facts() const = 0;

  // Device memory, 256-byte aligned, of unknown content. ResourceExhausted with the bytes wanted and free.
  virtual absl::StatusOr<void*> Allocate(size_t bytes) = 0;
  virtual void Free(void* memory) = 0;
  // Host memory that copies may read and write while the host goes on.
  virtual absl::StatusOr<void*> AllocatePinned(size_t bytes) = 0;
  virtual void FreePinned(void* memory) = 0;

  virtual void CopyToDevice(void* to, const void* from_pinned, size_t bytes) = 0;
  virtual void CopyToHost(void* to_pinned, const void* from, size_t bytes) = 0;
  virtual void Clear(void* memory, size_t bytes) = 0;
  virtual void LaunchKernel(int kernel, Grid grid, const void* args) = 0;
  virtual void Multiply(const Product& product) = 0;
  // Everything asked for is done, but for copies aside, and what was copied to the host is there.
  virtual void Synchronize() = 0;

  // Copies aside: in an order of their own. Each begins when what was asked for before it is done; what is asked for
  // after it does not wait for it before JoinAside.
  virtual void CopyToDeviceAside(void* to, const void* from_pinned, size_t bytes) = 0;
  virtual void CopyToHostAside(void* to_pinned, const void* from, size_t bytes) = 0;
  // What is asked for from now on begins when the copies aside are done.
  virtual void JoinAside() = 0;
  // The copies aside are done.
  virtual void SynchronizeAside() = 0;

  template <class Kernel>
  void Launch(Grid grid, const typename Kernel::Args& args) {
    if (grid.x > 0 && grid.y > 0 && grid.z > 0) LaunchKernel(kKernelId<Kernel>, grid, &args);
  }
};

// NotFound: no such device or no driver; FailedPrecondition: of a compute capability below 8.0.
absl::StatusOr<std::unique_ptr<Device>> OpenCudaDevice(int ordinal);

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_WORKER_KERNELS_CUDA_DEVICE_H_
