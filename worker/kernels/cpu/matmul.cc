#include "worker/kernels/cpu/matmul.h"

#include <algorithm>

#include "base/check.h"
#include "worker/kernels/cpu/activations.h"
#include "worker/kernels/cpu/matmul_dispatch.h"
#include "worker/kernels/cpu/packed_matrix.h"

namespace tidepool {
namespace {

// Tiles [first, last) of one matrix.
void MultiplyTiles(const MatMulKernels& kernels, const MatMulTask& task, const Activations::Data& x, int64_t first,
                   int64_t last) {
  const PackedMatrix::Data& matrix = task.matrix->data();
  const int64_t first_row = first * kTileRows;
  kernels.multiply[static_cast<int>(matrix.format)]({
      .tiles = matrix.bytes + static_cast<size_t>(first) * matrix.tile_bytes,
      .tile_bytes = static_cast<int64_t>(matrix.tile_bytes),
      .tile_count = last - first,
      .columns = matrix.columns,
      .blocks = x.blocks.data(),
      .floats = x.x,
      .count = x.count,
      .rows = std::min(last * kTileRows, matrix.rows) - first_row,
      .bias = task.bias == nullptr ? nullptr : task.bias + first_row,
      .out = task.out + first_row,
      .out_stride = task.out_stride,
  });
}

// Tiles handed out at a time. Few enough that all threads end together, enough that a chunk outweighs its hand-out;
// at most kMaxGrain, so that a chunk's weights stay in the cache while all activation rows pass.
int64_t GrainOf(int64_t tiles, int threads) {
  constexpr int64_t kChunksPerThread = 6, kMaxGrain = 8;
  return std::clamp<int64_t>(tiles / (threads * kChunksPerThread), 1, kMaxGrain);
}

}  // namespace

const MatMulKernels& MatMulKernelsOf(Isa isa) {
#ifdef TIDEPOOL_ISA_X86
  switch (isa) {
    case Isa::kAvx512: return cpu_avx512::kMatMulKernels;
    case Isa::kAvx2: return cpu_avx2::kMatMulKernels;
    case Isa::kBaseline: break;
  }
#endif
  return cpu_baseline::kMatMulKernels;
}

void MatMulWith(const MatMulKernels& kernels, absl::Span<const MatMulTask> tasks, const Activations& x,
                ThreadTeam& team) {
  const Activations::Data& activations = x.data();
  int64_t tiles = 0;
  for (const MatMulTask& task : tasks) {
    TIDEPOOL_CHECK(task.matrix->columns() == activations.columns);
    TIDEPOOL_CHECK(task.matrix->is_float() || activations.quantized);
    TIDEPOOL_CHECK(task.out_stride >= task.matrix->rows());
    tiles += task.matrix->data().tiles;
  }
  if (activations.count == 0) return;
  team.ForEachInRuns(tiles, GrainOf(tiles, team.size()), [&](int64_t first, int64_t last) {
    for (const MatMulTask& task : tasks) {
      const int64_t count = task.matrix->data().tiles;
      if (first < count && last > 0) {
        MultiplyTiles(kernels, task, activations, std::max<int64_t>(first, 0), std::min(last, count));
      }
      first -= count;
      last -= count;
    }
  });
}

void MatMul(absl::Span<const MatMulTask> tasks, const Activations& x, ThreadTeam& team) {
  MatMulWith(MatMulKernelsOf(ActiveIsa()), tasks, x, team);
}

}  // namespace tidepool
