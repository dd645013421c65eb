#include "worker/kernels/cuda/launch.cuh"

namespace tidepool::cuda {

LaunchTable AttendPackedLaunches() { return TableOf(AttendPackedKernels()); }

}  // namespace tidepool::cuda
