#include "worker/kernels/cuda/launch.cuh"

namespace tidepool::cuda {

LaunchTable AttendLaunches() { return TableOf(AttendKernels()); }

}  // namespace tidepool::cuda
