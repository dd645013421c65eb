#include "worker/kernels/cuda/launch.cuh"

namespace tidepool::cuda {

LaunchTable ByteMatVecLaunches() { return TableOf(ByteMatVecKernels()); }

}  // namespace tidepool::cuda
