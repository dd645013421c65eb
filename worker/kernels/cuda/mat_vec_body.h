// Decode's matrix products: a few rows of activations times quantised matrices.
//
// Shape: out[c][row] (+)= sum over columns of matrix[row][column] * x[c][column] (+ bias[row]), c < kColumns.
// Bytes moved: the matrices once, the activations from cache. Bound: memory bandwidth.
//
// A CTA takes four rows, a thread every kThreads-th block of 32 inputs of them: 512 bytes of a row in one load of a
// warp, and all loads of a thread at once. The integer product of a block is exact; the sums over blocks run in
// float32, by thread, then over the warp, then over the warps.
#ifndef TIDEPOOL_WORKER_KERNELS_CUDA_MAT_VEC_BODY_H_
#define TIDEPOOL_WORKER_KERNELS_CUDA_MAT_VEC_BODY_H_

#include "worker/kernels/cuda/matrix_format.h"

namespace tidepool::cuda {

// Rows of activations, as PrepareRows leaves them: whichever form the matrix wants.
struct DeviceActivations {
  const float* floats = nullptr;     // [count][columns]
  const uint16_t* halves = nullptr;  // likewise
  const int8_t* values = nullptr;    // [count][columns]: x ~ scale * value
  const float* scales = nullptr;     // [count][columns / 32]
  const float* sums = nullptr;       // [count][columns / 32]: scale * sum of values
};

struct MatVecPart {
  DeviceMatrix matrix;
  const float* bias = nullptr;  // [rows], or null
  float* out = nullptr;         // [count][stride]
  int32_t stride = 0;
  int32_t first_cta = 0;  // of those of its rows
};

struct MatVecArgs {
  static constexpr int kParts = 3;
  MatVecPart parts[kParts];  // by ascending first_cta
  int32_t part_count = 1;
  DeviceActivations x;
  int32_t count = 1;  // activation rows
  bool add = false;   // to what `out` holds

  TP_KERNEL const MatVecPart& PartOf(int cta) const {
    int p = 0;
    while (p + 1 < part_count && cta >= parts[p + 1].first_cta) ++p;
    return parts[p];
  }
};

// kCtaThreads: 32 for short rows.
template <MatrixFormat kFormat, int kColumns, int kCtaThreads>
struct MatVec {
  static constexpr int kThreads = kCtaThreads;
  static constexpr int kWarps = kThreads / 32;
  static constexpr int kRows = 4;  // of a CTA
  static constexpr FormatFacts kFacts = FactsOf(kFormat);
  using Args = MatVecArgs;
  struct Shared {
    SharedArray<float, kWarps * kRows * kColumns> sums;
  };
  static int Ctas(int rows) { return CeilDiv(rows, kRows); }

  template <class Cta>
  TP_KERNEL static void Run(Cta& cta, Shared& shared, const Args& args) {
    const MatVecPart& part = args.PartOf(cta.x());
    const int row = (cta.x() - part.first_cta) * kRows;
    float sums[kRows * kColumns] = {};
    const int columns = part.matrix.columns;
    if constexpr (kFacts.scales == 0) {
      for (int first = cta.thread() * 8; first < columns; first += kThreads * 8) {
        AddFloats(part.matrix, row, first, args, sums);
      }
    } else {
      for (int block = cta.thread(); block < columns / kBlock; block += kThreads) {
        AddBlock(part.matrix, row, block, args, sums);
      }
    }
    cta.template GroupSum<32>(sums);
    if (cta.thread() % 32 == 0) {
      for (int i = 0; i < kRows * kColumns; ++i) shared.sums[cta.thread() / 32 * kRows * kColumns + i] = sums[i];
    }
    cta.Sync();
    const int r = cta.thread() / kColumns, c = cta.thread() % kColumns;
    if (r >= kRows || row + r >= part.matrix.rows || c >= args.count) return;
    float value = part.bias != nullptr ? part.bias[row + r] : 0.0f;
    for (int w = 0; w < kWarps; ++w) value += shared.sums[w * kRows * kColumns + cta.thread()];
    float* to = part.out + static_cast<int64_t>(c) * part.stride + row + r;
    *to = args.add ? *to + value : value;
  }

 private:
  TP_KERNEL static int64_t RowOf(const DeviceMatrix& matrix, int row, int r) {
    return row + r < matrix.rows ? row + r : matrix.rows - 1;  // one that exists; the result is not used
  }

  TP_KERNEL static void AddBlock(const DeviceMatrix& matrix, int row, int block, const Args& args,
                                 float (&sums)[kRows * kColumns]) {
    uint32_t words[kRows][8];
    BlockScales<kFormat> scales[kRows];
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int r = 0; r < kRows; ++r) {
      LoadBlock<kFormat>(matrix, RowOf(matrix, row, r), block, words[r]);
      scales[r] = BlockScales<kFormat>::Load(matrix, RowOf(matrix, row, r), block);
    }
    const int64_t blocks = matrix.columns / kBlock;
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int c = 0; c < kColumns; ++c) {
      const int64_t x_row = c < args.count ? c : 0;
      const int8_t* values = args.x.values + (x_row * blocks + block) * kBlock;
      const Words4 low = LoadWords(values), high = LoadWords(values + 16);
      const float x_scale = args.x.scales[x_row * blocks + block];
      const float x_sum = kFacts.minimum || kFacts.offset != 0 ? args.x.sums[x_row * blocks + block] : 0;
#ifdef __CUDACC__
#pragma unroll
#endif
      for (int r = 0; r < kRows; ++r) {
        int first = 0, second = 0;
        for (int i = 0; i < 4; ++i) {
          first = DotBytes(words[r][i], low.w[i], first);
          second = DotBytes(words[r][4 + i], high.w[i], second);
        }
        float sum;
        if constexpr (kFacts.scales == 2) {
          sum = (static_cast<float>(first) * scales[r].scale[0] + static_cast<float>(second) * scales[r].scale[1]) *
                x_scale;
        } else {
          sum = static_cast<float>(first + second) * scales[r].scale[0] * x_scale;
        }
        if constexpr (kFacts.minimum) sum += scales[r].minimum * x_sum;
        if constexpr (kFacts.offset != 0) sum -= static_cast<float>(kFacts.offset) * scales[r].scale[0] * x_sum;
        sums[r * kColumns + c] += sum;
      }
    }
  }

  // Eight inputs from `first` on; a multiple of 8 of them exist.
  TP_KERNEL static void AddFloats(const DeviceMatrix& matrix, int row, int first, const Args& args,
                                  float (&sums)[kRows * kColumns]) {
    float w[kRows][8];
    for (int r = 0; r < kRows; ++r) {
      const int64_t at = RowOf(matrix, row, r) * matrix.columns + first;
      if constexpr (kFormat == MatrixFormat::kF32) {
        for (int half = 0; half < 2; ++half) {
          const Words4 four = StreamWords(matrix.values + (at + 4 * half) * 4);
          for (int i = 0; i < 4; ++i) memcpy(&w[r][4 * half + i], &four.w[i], 4);
        }
      } else {
        const Words4 eight = StreamWords(matrix.values + at * 2);
        for (int i = 0; i < 4; ++i) {
          if constexpr (kFormat == MatrixFormat::kF16) {
            HalvesToFloats(eight.w[i], &w[r][2 * i]);
          } else {
            w[r][2 * i] = BrainToFloat(static_cast<uint16_t>(eight.w[i]));
            w[r][2 * i + 1] = BrainToFloat(static_cast<uint16_t>(eight.w[i] >> 16));
          }
        }
      }
    }
    for (int c = 0; c < kColumns; ++c) {
      const float* x = args.x.floats + static_cast<int64_t>(c < args.count ? c : 0) * matrix.columns + first;
      for (int i = 0; i < 8; ++i) {
        for (int r = 0; r < kRows; ++r) sums[r * kColumns + c] += w[r][i] * x[i];
      }
    }
  }
};

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_WORKER_KERNELS_CUDA_MAT_VEC_BODY_H_
