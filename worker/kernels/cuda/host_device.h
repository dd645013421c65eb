// A device on the host: kernels by the emulator, matrix products in plain loops. Copies happen at Synchronize, and
// until then in the order of the calls, so that nothing works by luck: what is read too early is not there yet.
#ifndef TIDEPOOL_WORKER_KERNELS_CUDA_HOST_DEVICE_H_
#define TIDEPOOL_WORKER_KERNELS_CUDA_HOST_DEVICE_H_

#include <cstdint>
#include <memory>

#include "worker/kernels/cuda/device.h"

namespace tidepool::cuda {

// threads: that emulate CTAs. seed: of when copies aside come, between the earliest and the last that is allowed.
// Memory: each allocation ends at a page that may not be touched.
std::unique_ptr<Device> MakeHostDevice(int threads, uint32_t seed = 1);

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_WORKER_KERNELS_CUDA_HOST_DEVICE_H_
