#include "worker/kernels/cuda/launch.cuh"

namespace tidepool::cuda {

LaunchTable NibbleMatVecLaunches() { return TableOf(NibbleMatVecKernels()); }

}  // namespace tidepool::cuda
