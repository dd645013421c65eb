#include "worker/kernels/cuda/launch.cuh"

namespace tidepool::cuda {

LaunchTable RowLaunches() { return TableOf(RowKernels()); }

}  // namespace tidepool::cuda
