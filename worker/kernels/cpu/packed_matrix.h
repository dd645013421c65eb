// The memory behind PackedMatrix, for matmul.cc and tests.
#ifndef TIDEPOOL_WORKER_KERNELS_CPU_PACKED_MATRIX_H_
#define TIDEPOOL_WORKER_KERNELS_CPU_PACKED_MATRIX_H_

#include <cstdint>
#include <cstdlib>
#include <memory>

#include "worker/kernels/cpu/matmul.h"
#include "worker/kernels/cpu/packed_format.h"

namespace tidepool {

struct PackedMatrix::Data {
  struct Free {
    void operator()(uint8_t* bytes) const { std::free(bytes); }
  };

  PackedFormat format = PackedFormat::kF32;
  int64_t rows = 0, columns = 0;
  int64_t tiles = 0;                       // ceil(rows / kTileRows); rows past the end are zero
  size_t tile_bytes = 0;                   // distance between tiles
  std::unique_ptr<uint8_t[], Free> bytes;  // [tiles * tile_bytes], aligned to 64
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KERNELS_CPU_PACKED_MATRIX_H_
