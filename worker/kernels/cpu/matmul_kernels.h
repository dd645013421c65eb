// The inner loops of MatMul, one set for each instruction set. Plain data only.
//
// One result is the sum over blocks of 32 inputs, ascending, of
//   (float(dot) * scale) * x.scale, then + minimum * x.scaled_sum
// with `dot` the exact int32 product of the stored values less the offset, every float operation rounded by itself (no
// fused multiply-add): so every instruction set, every batch size and every split give the same bits. Float formats add
// w * x input by input, fused where the instruction set has it: the same bits for every batch size and split of one
// instruction set.
#ifndef TIDEPOOL_WORKER_KERNELS_CPU_MATMUL_KERNELS_H_
#define TIDEPOOL_WORKER_KERNELS_CPU_MATMUL_KERNELS_H_

#include <cstdint>

#include "worker/kernels/cpu/packed_format.h"

namespace tidepool {

// kBlockInputs activations: x[i] ~ scale * values[i], |values[i]| <= 127.
struct ActivationBlock {
  int8_t values[kBlockInputs];
  float scale;
  float scaled_sum;          // scale * sum of values
  int32_t negative_sum;      // - sum of values
  int16_t negative_half[2];  // - sum of values 0..15 and 16..31
};
static_assert(sizeof(ActivationBlock) == 48);

// Tiles times activation rows. Exactly one of `blocks` and `floats` is used, as the format is integer or float.
struct TileJob {
  const uint8_t* tiles = nullptr;  // first of `tile_count`, `tile_bytes` apart
  int64_t tile_bytes = 0;
  int64_t tile_count = 0;
  int64_t columns = 0;
  const ActivationBlock* blocks = nullptr;  // [count][columns / kBlockInputs]
  const float* floats = nullptr;            // [count][columns]
  int64_t count = 0;
  int64_t rows = 0;             // outputs of these tiles: fewer than tile_count * kTileRows in the last of a matrix
  const float* bias = nullptr;  // [rows] or null
  float* out = nullptr;         // [count][out_stride], from the first row of the first tile
  int64_t out_stride = 0;
};

struct MatMulKernels {
  // x: [blocks * kBlockInputs]. Symmetric, to nearest even; a block with an infinity or NaN gives NaN results.
  void (*quantize)(const float* x, int64_t blocks, ActivationBlock* out);
  void (*multiply[kPackedFormats])(const TileJob& job);  // by PackedFormat
};

namespace cpu_baseline {
extern const MatMulKernels kMatMulKernels;
}
namespace cpu_avx2 {
extern const MatMulKernels kMatMulKernels;
}
namespace cpu_avx512 {
extern const MatMulKernels kMatMulKernels;
}

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KERNELS_CPU_MATMUL_KERNELS_H_
