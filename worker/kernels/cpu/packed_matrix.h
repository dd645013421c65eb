// The memory behind PackedMatrix, for matmul.cc and tests.
#ifndef TIDEPOOL_WORKER_KERNELS_CPU_PACKED_MATRIX_H_
#define TIDEPOOL_WORKER_KERNELS_CPU_PACKED_MATRIX_H_

#include <cstddef>
#include <cstdint>

#include "worker/kernels/cpu/matmul.h"
#include "worker/kernels/cpu/packed_format.h"

namespace tidepool {

struct PackedMatrix::Data {
  PackedFormat format = PackedFormat::kF32;
  int64_t rows = 0, columns = 0;
  int64_t tiles = 0;         // ceil(rows / kTileRows); rows past the end are zero
  size_t tile_bytes = 0;     // distance between tiles
  uint8_t* bytes = nullptr;  // [tiles * tile_bytes], aligned to 64
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KERNELS_CPU_PACKED_MATRIX_H_
