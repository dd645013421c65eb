// Numbers of lanes. Included by kernel sources only, each compiled with TIDEPOOL_ISA.
#ifndef TIDEPOOL_WORKER_KERNELS_CPU_LANE_NUMBERS_H_
#define TIDEPOOL_WORKER_KERNELS_CPU_LANE_NUMBERS_H_

#include <cstdint>

#include "hwy/highway.h"

namespace tidepool::TIDEPOOL_ISA {
namespace {

alignas(64) constexpr int32_t kLaneNumbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

// first + the number of each lane. Where `first` is no constant, GCC 12 makes of hn::Iota as many stores as there are
// lanes, and a load that has to wait for all of them.
template <typename DI>
HWY_INLINE hwy::HWY_NAMESPACE::Vec<DI> LanesFrom(DI di, int32_t first) {
  namespace hn = hwy::HWY_NAMESPACE;
  return hn::Add(hn::Set(di, first), hn::LoadU(di, kLaneNumbers));
}

}  // namespace
}  // namespace tidepool::TIDEPOOL_ISA

#endif  // TIDEPOOL_WORKER_KERNELS_CPU_LANE_NUMBERS_H_
