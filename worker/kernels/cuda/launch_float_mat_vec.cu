#include "worker/kernels/cuda/launch.cuh"

namespace tidepool::cuda {

LaunchTable FloatMatVecLaunches() { return TableOf(FloatMatVecKernels()); }

}  // namespace tidepool::cuda
