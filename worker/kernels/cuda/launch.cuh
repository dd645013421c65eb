// Kernel bodies as CUDA kernels, and the tables by which a number finds its launch (kernel_list.h).
#ifndef TIDEPOOL_WORKER_KERNELS_CUDA_LAUNCH_CUH_
#define TIDEPOOL_WORKER_KERNELS_CUDA_LAUNCH_CUH_

#include <cuda_runtime.h>

#include "worker/kernels/cuda/kernel_list.h"

namespace tidepool::cuda {

template <class Kernel>
constexpr int CtasAtOnce() {
  if constexpr (requires { Kernel::kCtasAtOnce; }) return Kernel::kCtasAtOnce;
  return 1;
}

template <class Kernel>
__global__ void __launch_bounds__(Kernel::kThreads, CtasAtOnce<Kernel>())
    RunKernel(const __grid_constant__ typename Kernel::Args args) {
  __shared__ typename Kernel::Shared shared;
  DeviceCta cta;
#if __CUDA_ARCH__ >= 900
  // The next kernel's CTAs may take their places as soon as all of this one's have theirs; each waits for what the
  // kernels before it have written.
  cudaTriggerProgrammaticLaunchCompletion();
  cudaGridDependencySynchronize();
#endif
  Kernel::Run(cta, shared, args);
}

// early: CTAs may take their places before the kernel in front has ended, as compute capability 9.0 can.
using LaunchFunction = cudaError_t (*)(cudaStream_t stream, Grid grid, bool early, const void* args);

template <class Kernel>
cudaError_t LaunchOn(cudaStream_t stream, Grid grid, bool early, const void* args) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(grid.x, grid.y, grid.z);
  config.blockDim = dim3(Kernel::kThreads);
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = early ? 1 : 0;
  return cudaLaunchKernelEx(&config, RunKernel<Kernel>, *static_cast<const typename Kernel::Args*>(args));
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
LaunchTable AttendPackedLaunches();
LaunchTable PrefillLaunches();
LaunchTable FloatMatVecLaunches();
LaunchTable NibbleMatVecLaunches();
LaunchTable ByteMatVecLaunches();

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_WORKER_KERNELS_CUDA_LAUNCH_CUH_
