// The inner loops of MatMul, one set for each instruction set. Plain data only.
//
// One result is the sum over blocks of 32 inputs, ascending, of
//   (float(dot) * scale) * x.scale, then + minimum * x.scaled_sum
// with `dot` the exact int32 product of the stored values less the offset. Float formats add w * x input by input.
// Products are added fused where the instruction set has that: the same bits for every batch size and split of one
// instruction set, and for all that fuse.
#ifndef TIDEPOOL_WORKER_KERNELS_CPU_MATMUL_KERNELS_H_
#define TIDEPOOL_WORKER_KERNELS_CPU_MATMUL_KERNELS_H_

#include <cstdint>

#include "worker/kernels/cpu/packed_format.h"

namespace tidepool {

// A batch's activation rows lie in panels of kPanelRows, those that are left in panels of 4, 2 and 1, so that what a
// block of weights meets together lies side by side. Row r begins its panel's blocks at r * (columns / kBlockInputs).
inline constexpr int kPanelRows = 8;

// kBlockInputs activations of each row of a panel: x[i] ~ scale * value, |value| <= 127.
template <int kRows>
struct PanelBlock {
  int8_t values[kBlockGroups][kRows][4];
  float scale[kRows];
  float scaled_sum[kRows];          // scale * sum of values
  int32_t negative_sum[kRows];      // - sum of values
  int16_t negative_half[2][kRows];  // - sum of values 0..15 and 16..31
};
using ActivationBlock = PanelBlock<1>;
static_assert(sizeof(ActivationBlock) == 48 && sizeof(PanelBlock<kPanelRows>) == 48 * kPanelRows);

// Tiles times activation rows. Exactly one of `blocks` and `floats` is used, as the format is integer or float.
struct TileJob {
  const uint8_t* tiles = nullptr;  // first of `tile_count`, `tile_bytes` apart
  int64_t tile_bytes = 0;
  int64_t tile_count = 0;
  int64_t columns = 0;
  const ActivationBlock* blocks = nullptr;  // [count][columns / kBlockInputs], in panels
  const float* floats = nullptr;            // [count][columns]
  int64_t count = 0;
  int64_t rows = 0;             // outputs of these tiles: fewer than tile_count * kTileRows in the last of a matrix
  const float* bias = nullptr;  // [rows] or null
  float* out = nullptr;         // [count][out_stride], from the first row of the first tile
  int64_t out_stride = 0;
};

struct MatMulKernels {
  // x: [count][columns], out: their panels. Blocks [first, end) of each row. Symmetric, to nearest even; a block with
  // an infinity or NaN gives NaN results.
  void (*quantize)(const float* x, int64_t count, int64_t columns, int64_t first, int64_t end, ActivationBlock* out);
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
