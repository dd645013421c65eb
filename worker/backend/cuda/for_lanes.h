// Kernels that are templates over the width of a head.
#ifndef TIDEPOOL_WORKER_BACKEND_CUDA_FOR_LANES_H_
#define TIDEPOOL_WORKER_BACKEND_CUDA_FOR_LANES_H_

namespace tidepool::cuda {

// kLanes of a head: a lane holds 8 channels.
inline int LanesOf(int head_dim) {
  int lanes = 2;
  while (lanes * 8 < head_dim) lanes *= 2;
  return lanes;
}

template <class With>
void ForLanes(int lanes, With&& with) {
  switch (lanes) {
    case 2: return with.template operator()<2>();
    case 4: return with.template operator()<4>();
    case 8: return with.template operator()<8>();
    case 16: return with.template operator()<16>();
    default: return with.template operator()<32>();
  }
}

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_WORKER_BACKEND_CUDA_FOR_LANES_H_
