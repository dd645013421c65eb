// Kernel bodies as CUDA kernels, and the tables by which a number finds its launch (kernel_list.h).
#ifndef TIDEPOOL_WORKER_KERNELS_CUDA_LAUNCH_CUH_
#define TIDEPOOL_WORKER_KERNELS_CUDA_LAUNCH_CUH_

#include <cuda_runtime.h>

#include "worker/kernels/cuda/kernel_list.h"

namespace tidepool::cuda {

template <class Kernel>
__global__ void __launch_bounds__(Kernel::kThreads) RunKernel(const __grid_constant__ typename Kernel::Args args) {
  __shared__ typename Kernel::Shared shared;
  DeviceCta cta;
  Kernel::Run(cta, shared, args);
}

using LaunchFunction = cudaError_t (*)(cudaStream_t stream, Grid grid, const void* args);

template <class Kernel>
cudaError_t LaunchOn(cudaStream_t stream, Grid grid, const void* args) {
  RunKernel<Kernel>
      <<<dim3(grid.x, grid.y, grid.z), Kernel::kThreads, 0, stream>>>(*static_cast<const typename Kernel::Args*>(args));
  return cudaGetLastError();
}

struct LaunchTable {
  const LaunchFunction* launches;
  int count;
};

template <class... Kernels>
LaunchTable TableOf(KernelList<Kernels...>) {
  static constexpr LaunchFunction kLaunches[] = {LaunchOn<Kernels>...};
  return {kLaunches, sizeof...(Kernels)};
}

// One for each file of kernels, in the order of AllKernels.
LaunchTable RowLaunches();
LaunchTable AttendLaunches();
LaunchTable FloatMatVecLaunches();
LaunchTable NibbleMatVecLaunches();
LaunchTable ByteMatVecLaunches();

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_WORKER_KERNELS_CUDA_LAUNCH_CUH_
