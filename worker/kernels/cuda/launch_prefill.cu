#include "worker/kernels/cuda/launch.cuh"

namespace tidepool::cuda {

LaunchTable PrefillLaunches() { return TableOf(PrefillKernels()); }

}  // namespace tidepool::cuda
