// Matrix products of several rows of activations with quantised matrices, on the tensor cores: as MatVec, for up to
// 8 * kTiles rows, with the matrices read once.
//
// A CTA takes 16 rows of a matrix. A warp takes four blocks of 32 inputs at a time, a lane one block of two rows, as
// halves: scale * (value - offset) + minimum, rounded once. Sums run in float32, by warp, then over the warps. Bound:
// memory bandwidth.
#ifndef TIDEPOOL_WORKER_KERNELS_CUDA_MAT_TILE_BODY_H_
#define TIDEPOOL_WORKER_KERNELS_CUDA_MAT_TILE_BODY_H_

#include "worker/kernels/cuda/mat_vec_body.h"

namespace tidepool::cuda {

template <MatrixFormat kFormat, int kTiles>
struct MatTile {
  static constexpr int kWarps = kTiles == 1 ? 8 : 4;
  static constexpr int kThreads = kWarps * 32;
  static constexpr int kRowsOfCta = 16;
  static constexpr int kColumns = 8 * kTiles;
  static constexpr FormatFacts kFacts = FactsOf(kFormat);
  // Weights are multiplied so many times too large: their scales are then normal halves. Weights up to 4094 are
  // representable.
  static constexpr float kEnlarged = 16;
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
    const int rows[2] = {Existing(part.matrix, first_row + eighth), Existing(part.matrix, first_row + eighth + 8)};
    float sums[kTiles][4] = {};
    const int blocks = part.matrix.columns / kBlock;
#ifdef __CUDACC__
#pragma unroll(kTiles <= 2 ? 2 : 1)
#endif
    for (int first = warp * 4; first < blocks; first += kWarps * 4) {
      AddBlocks(cta, part.matrix, rows, first + quarter, eighth, args, sums);
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
      float sum = 0;
      for (int w = 0; w < kWarps; ++w) sum += shared.sums[(w * kRowsOfCta + i % kRowsOfCta) * kColumns + column];
      float* to = part.out + static_cast<int64_t>(column) * part.stride + row;
      const float value = sum / kEnlarged + (part.bias != nullptr ? part.bias[row] : 0.0f);
      *to = args.add ? *to + value : value;
    }
  }

 private:
  // Of a row.
  struct Block {
    uint32_t words[8];  // values, less no offset; in 4-bit form four words of nibbles
    uint32_t scale[2];  // of the halves of the block, twice each
    uint32_t minimum;
  };

  // A row that exists; the result for another is not used.
  TP_KERNEL static int Existing(const DeviceMatrix& matrix, int row) {
    return row < matrix.rows ? row : matrix.rows - 1;
  }
  TP_KERNEL static uint32_t Twice(float x) {
    const uint16_t half = FloatToHalf(x);
    return half | static_cast<uint32_t>(half) << 16;
  }

  // What does not exist weighs 0. All loads are made, of what is there, so that none waits for a branch.
  TP_KERNEL static Block Load(const DeviceMatrix& matrix, int row, int block, bool exists) {
    Block out = {};
    const int64_t at = row * static_cast<int64_t>(matrix.columns / kBlock) + block;
    for (int part = 0; part < kFacts.bits / 4; ++part) {
      const Words4 words = StreamWords(matrix.values + (at * kFacts.bits / 4 + part) * 16);
      for (int i = 0; i < 4; ++i) out.words[4 * part + i] = words.w[i];
    }
    const BlockScales<kFormat> scales = BlockScales<kFormat>::Load(matrix, row, block);
    const float factor = exists ? kEnlarged : 0.0f;
    for (int i = 0; i < 2; ++i) out.scale[i] = Twice(scales.scale[kFacts.scales == 2 ? i : 0] * factor);
    if constexpr (kFacts.minimum) out.minimum = Twice(scales.minimum * factor);
    return out;
  }

  // Inputs 4 i + 0 and 2, then 4 i + 1 and 3, as halves.
  TP_KERNEL static void Weights(const Block& block, int i, uint32_t (&out)[2]) {
    // Bits of a value become the last bits of a half that counts ones from 1024 on, or sixteenths of bits from 64 on.
    const bool high = kFacts.bits == 4 && i >= 4;
    const uint32_t mask = kFacts.bits == 8 ? 0x00ff00ffu : high ? 0x00f000f0u : 0x000f000fu;
    const uint32_t base = high ? 0x54005400u : 0x64006400u;
    const uint32_t offset = kFacts.bits == 8 ? 128 : kFacts.offset * (high ? 16 : 1);
    const uint32_t word = kFacts.bits == 8 ? block.words[i] ^ 0x80808080u : block.words[i % 4];
    for (int odd = 0; odd < 2; ++odd) {
      const uint32_t values = HalvesMinus((word >> (8 * odd) & mask) | base, base + (offset << 16 | offset));
      out[odd] = HalvesTimesPlus(values, block.scale[i / 4], block.minimum);
    }
  }

  // The four blocks of a quad of lanes, one for each lane.
  template <class Cta>
  TP_KERNEL static void AddBlocks(Cta& cta, const DeviceMatrix& matrix, const int (&rows)[2], int block, int eighth,
                                  const Args& args, float (&sums)[kTiles][4]) {
    const bool exists = block < matrix.columns / kBlock;
    if (!exists) block = matrix.columns / kBlock - 1;
    const Block upper = Load(matrix, rows[0], block, exists), lower = Load(matrix, rows[1], block, exists);
    const uint16_t* x_rows[kTiles];  // of columns that exist; results for others are not used
    for (int t = 0; t < kTiles; ++t) {
      const int column = t * 8 + eighth < args.count ? t * 8 + eighth : 0;
      x_rows[t] = args.x.halves + static_cast<int64_t>(column) * matrix.columns + block * kBlock;
    }
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int eight = 0; eight < 4; ++eight) {  // of the inputs
      uint32_t a[2][4];
      for (int i = 0; i < 2; ++i) {
        uint32_t of_upper[2], of_lower[2];
        Weights(upper, 2 * eight + i, of_upper);
        Weights(lower, 2 * eight + i, of_lower);
        for (int odd = 0; odd < 2; ++odd) {
          a[i][2 * odd] = of_upper[odd];
          a[i][2 * odd + 1] = of_lower[odd];
        }
      }
#ifdef __CUDACC__
#pragma unroll
#endif
      for (int t = 0; t < kTiles; ++t) {
        const Words4 x = LoadWords(x_rows[t] + eight * 8);
        for (int i = 0; i < 2; ++i) {
          const uint32_t b[2] = {LowHalves(x.w[2 * i], x.w[2 * i + 1]), HighHalves(x.w[2 * i], x.w[2 * i + 1])};
          cta.MultiplyHalves(a[i], b, sums[t]);
        }
      }
    }
  }
};

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_WORKER_KERNELS_CUDA_MAT_TILE_BODY_H_
