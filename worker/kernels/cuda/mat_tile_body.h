// Matrix products of several rows of activations with quantised matrices, on the tensor cores: as MatVec, for up to
// 8 * kTiles rows, with the matrices read once.
//
// A CTA takes 16 rows of a matrix; its warps take turns at blocks of 32 inputs, one product of 16 x 32 by 32 x 8 bytes
// for each block and 8 rows of activations, and add up at the end. Bound: memory bandwidth.
#ifndef TIDEPOOL_WORKER_KERNELS_CUDA_MAT_TILE_BODY_H_
#define TIDEPOOL_WORKER_KERNELS_CUDA_MAT_TILE_BODY_H_

#include "worker/kernels/cuda/mat_vec_body.h"

namespace tidepool::cuda {

template <MatrixFormat kFormat, int kTiles>
struct MatTile {
  static constexpr int kThreads = 256;
  static constexpr bool kWaitsItself = true;
  static constexpr int kWarps = kThreads / 32;
  static constexpr int kRowsOfCta = 16;
  static constexpr int kColumns = 8 * kTiles;
  static constexpr FormatFacts kFacts = FactsOf(kFormat);
  using Args = MatVecArgs;
  struct Shared {
    SharedArray<float, kWarps * kRowsOfCta * kColumns> sums;
  };
  static int Ctas(int rows) { return CeilDiv(rows, kRowsOfCta); }

  template <class Cta>
  TP_KERNEL static void Run(Cta& cta, Shared& shared, const Args& args) {
    const MatVecPart& part = args.PartOf(cta.x());
    const int lane = cta.thread() % 32, warp = cta.thread() / 32, quarter = lane % 4, eighth = lane / 4;
    const int first_row = (cta.x() - part.first_cta) * kRowsOfCta;
    PrefetchRows(cta, part.matrix, first_row, kRowsOfCta, cta.thread(), kThreads);
    cta.WaitForInputs();
    const int rows[2] = {Existing(part.matrix, first_row + eighth), Existing(part.matrix, first_row + eighth + 8)};
    float sums[kTiles][4] = {};
    const int blocks = part.matrix.columns / kBlock;
#ifdef __CUDACC__
#pragma unroll 4
#endif
    for (int block = warp; block < blocks; block += kWarps) {
      AddBlock(cta, part.matrix, rows, block, quarter, eighth, args, sums);
    }
    for (int t = 0; t < kTiles; ++t) {
      for (int i = 0; i < 4; ++i) {
        const int row = eighth + i / 2 * 8, column = t * 8 + quarter * 2 + i % 2;
        shared.sums[(warp * kRowsOfCta + row) * kColumns + column] = sums[t][i];
      }
    }
    cta.Sync();
    for (int i = cta.thread(); i < kRowsOfCta * kColumns; i += kThreads) {
      const int row = first_row + i % kRowsOfCta, column = i / kRowsOfCta;
      if (row >= part.matrix.rows || column >= args.count) continue;
      float value = part.bias != nullptr ? part.bias[row] : 0.0f;
      for (int w = 0; w < kWarps; ++w) value += shared.sums[(w * kRowsOfCta + i % kRowsOfCta) * kColumns + column];
      float* to = part.out + static_cast<int64_t>(column) * part.stride + row;
      *to = args.add ? *to + value : value;
    }
  }

 private:
  // A row that exists; the result for another is not used.
  TP_KERNEL static int Existing(const DeviceMatrix& matrix, int row) { return row < matrix.rows ? row : matrix.rows - 1; }

  template <class Cta>
  TP_KERNEL static void AddBlock(Cta& cta, const DeviceMatrix& matrix, const int (&rows)[2], int block, int quarter,
                                 int eighth, const Args& args, float (&sums)[kTiles][4]) {
    const int64_t blocks = matrix.columns / kBlock;
    uint32_t a[4];
    BlockScales<kFormat> scales[2];
    for (int r = 0; r < 2; ++r) {
      const int64_t at = rows[r] * blocks + block;
      if constexpr (kFacts.bits == 4) {
        const uint32_t word = StreamWord(matrix.values + at * 16 + quarter * 4);
        a[r] = word & 0x0f0f0f0fu;
        a[2 + r] = word >> 4 & 0x0f0f0f0fu;
      } else {
        a[r] = StreamWord(matrix.values + at * 32 + quarter * 4);
        a[2 + r] = StreamWord(matrix.values + at * 32 + 16 + quarter * 4);
      }
      scales[r] = BlockScales<kFormat>::Load(matrix, rows[r], block);
    }
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int t = 0; t < kTiles; ++t) {
      const int column = t * 8 + eighth;
      uint32_t b[2] = {0, 0};
      if (column < args.count) {
        const int8_t* values = args.x.values + (column * blocks + block) * kBlock + quarter * 4;
        b[0] = LoadWord(values);
        b[1] = LoadWord(values + 16);
      }
      int products[2][4] = {};
      if constexpr (kFacts.scales == 2) {  // a scale for each half
        const uint32_t first[4] = {a[0], a[1], 0, 0}, second[4] = {0, 0, a[2], a[3]};
        cta.MultiplyBytes(first, b, products[0]);
        cta.MultiplyBytes(second, b, products[1]);
      } else {
        cta.MultiplyBytes(a, b, products[0]);
      }
      for (int i = 0; i < 2; ++i) {
        const int of = t * 8 + quarter * 2 + i;
        if (of >= args.count) continue;
        const float x_scale = args.x.scales[of * blocks + block];
        const float x_sum = kFacts.minimum || kFacts.offset != 0 ? args.x.sums[of * blocks + block] : 0.0f;
        for (int r = 0; r < 2; ++r) {
          float sum = static_cast<float>(products[0][2 * r + i]) * scales[r].scale[0];
          if constexpr (kFacts.scales == 2) sum += static_cast<float>(products[1][2 * r + i]) * scales[r].scale[1];
          sum *= x_scale;
          if constexpr (kFacts.minimum) sum += scales[r].minimum * x_sum;
          if constexpr (kFacts.offset != 0) sum -= static_cast<float>(kFacts.offset) * scales[r].scale[0] * x_sum;
          sums[t][2 * r + i] += sum;
        }
      }
    }
  }
};

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_WORKER_KERNELS_CUDA_MAT_TILE_BODY_H_
