// Rows of activations between the matrix products: embedding, normalisation, SiLU, and their quantised and half forms;
// a matrix as halves for prefill's products.
#ifndef TIDEPOOL_WORKER_KERNELS_CUDA_ROWS_BODY_H_
#define TIDEPOOL_WORKER_KERNELS_CUDA_ROWS_BODY_H_

#include "worker/kernels/cuda/matrix_format.h"

namespace tidepool::cuda {

// x[i] = row tokens[i] of the embedding. One CTA for a token. Bytes: the row once, 4 * columns written.
struct Embed {
  static constexpr int kThreads = 128;
  struct Args {
    DeviceMatrix table;
    const int32_t* tokens = nullptr;  // [count]
    float* x = nullptr;               // [count][columns]
  };
  struct Shared {};

  template <class Cta>
  TP_KERNEL static void Run(Cta& cta, Shared&, const Args& args) {
    const int64_t row = args.tokens[cta.x()];
    float* to = args.x + static_cast<int64_t>(cta.x()) * args.table.columns;
    for (int block = cta.thread(); block < args.table.columns / kBlock; block += kThreads) {
      ForFormat(args.table.format, [&]<MatrixFormat kFormat>() {
        float values[kBlock];
        DequantizeBlock<kFormat>(args.table, row, block, values);
        for (int i = 0; i < kBlock; ++i) to[block * kBlock + i] = values[i];
      });
    }
  }
};

// out = the matrix as halves (beyond their range clamped) or floats. A thread for a block.
struct Dequantize {
  static constexpr int kThreads = 128;
  struct Args {
    DeviceMatrix matrix;
    uint16_t* halves = nullptr;  // [rows][columns], or null
    float* floats = nullptr;     // likewise
  };
  struct Shared {};

  template <class Cta>
  TP_KERNEL static void Run(Cta& cta, Shared&, const Args& args) {
    const int64_t blocks = args.matrix.columns / kBlock, index = static_cast<int64_t>(cta.x()) * kThreads + cta.thread();
    if (index >= blocks * args.matrix.rows) return;
    const int64_t row = index / blocks;
    const int block = static_cast<int>(index % blocks);
    ForFormat(args.matrix.format, [&]<MatrixFormat kFormat>() {
      float values[kBlock];
      DequantizeBlock<kFormat>(args.matrix, row, block, values);
      if (args.halves != nullptr) {
        for (int i = 0; i < kBlock / 8; ++i) {
          Words4 words;
          for (int k = 0; k < 4; ++k) {
            const float a = ClampedToHalfRange(values[8 * i + 2 * k]), b = ClampedToHalfRange(values[8 * i + 2 * k + 1]);
            words.w[k] = FloatToHalf(a) | static_cast<uint32_t>(FloatToHalf(b)) << 16;
          }
          StoreWords(args.halves + index * kBlock + 8 * i, words);
        }
      }
      if (args.floats != nullptr) {
        for (int i = 0; i < kBlock; ++i) args.floats[index * kBlock + i] = values[i];
      }
    });
  }
};

// y = x (kCopy), x normalised and weighted (kNorm, RMS), or silu(x) * up (kSilu), in the forms that are wanted.
// grid.x: rows; grid.y: parts of a row (1 for kNorm). Bytes: the inputs once (kNorm: twice, from cache), the forms once.
struct PrepareRows {
  static constexpr int kThreads = 256;
  enum class Op : uint8_t { kCopy, kNorm, kSilu };
  struct Args {
    Op op = Op::kCopy;
    int32_t columns = 0;           // a multiple of 32
    const float* x = nullptr;      // [rows][columns]
    const int32_t* row = nullptr;  // null, or which row of x is the i-th
    const float* weight = nullptr;  // kNorm: [columns]
    float epsilon = 0;
    const float* up = nullptr;  // kSilu: [rows][columns]
    // [rows][columns], each null where it is not wanted; values with scales and sums.
    float* floats = nullptr;
    uint16_t* halves = nullptr;
    int8_t* values = nullptr;
    float* scales = nullptr;
    float* sums = nullptr;
  };
  struct Shared {
    SharedArray<float, kThreads / 32> squares;
  };

  template <class Cta>
  TP_KERNEL static void Run(Cta& cta, Shared& shared, const Args& args) {
    const int64_t out_row = cta.x(), in_row = args.row != nullptr ? args.row[out_row] : out_row;
    const float* x = args.x + in_row * args.columns;
    const int lane = cta.thread() % 32, warp = cta.thread() / 32;
    float factor = 1;
    if (args.op == Op::kNorm) {
      float squares = 0;
      for (int i = cta.thread(); i < args.columns; i += kThreads) squares += x[i] * x[i];
      squares = cta.WarpSum(squares);
      if (lane == 0) shared.squares[warp] = squares;
      cta.Sync();
      float sum = 0;
      for (int i = 0; i < kThreads / 32; ++i) sum += shared.squares[i];
      factor = 1.0f / sqrtf(sum / static_cast<float>(args.columns) + args.epsilon);
    }
    // A warp takes a block of 32, a lane an element.
    const int blocks = args.columns / kBlock, warps = kThreads / 32 * cta.grid().y;
    for (int block = cta.y() * (kThreads / 32) + warp; block < blocks; block += warps) {
      const int column = block * kBlock + lane;
      const int64_t at = out_row * args.columns + column;
      float y = x[column];
      if (args.op == Op::kNorm) y = y * factor * args.weight[column];
      if (args.op == Op::kSilu) y = y / (1.0f + expf(-y)) * args.up[at];
      if (args.floats != nullptr) args.floats[at] = y;
      if (args.halves != nullptr) args.halves[at] = FloatToHalf(ClampedToHalfRange(y));
      if (args.values == nullptr) continue;
      const float largest = cta.WarpMax(fabsf(y));
      const float scale = largest / 127.0f;
      // A NaN is lost in the maximum and an infinity spoils the others: both must show.
      const float value = scale > 0 ? rintf(y / scale) : 0.0f;
      const bool finite = y - y == 0;
      const float total = cta.WarpSum(finite ? value : y - y);
      args.values[at] = static_cast<int8_t>(finite ? value : 0.0f);
      if (lane == 0) {
        const float shown = total - total == 0 ? scale : total - total;
        args.scales[out_row * blocks + block] = shown;
        args.sums[out_row * blocks + block] = shown * total;
      }
    }
  }
};

// Adds a bias to rows, in place: prefill's products have none.
struct AddBias {
  static constexpr int kThreads = 256;
  struct Args {
    const float* bias = nullptr;  // [columns]
    float* x = nullptr;           // [rows][columns]
    int32_t columns = 0;
  };
  struct Shared {};

  template <class Cta>
  TP_KERNEL static void Run(Cta& cta, Shared&, const Args& args) {
    float* x = args.x + static_cast<int64_t>(cta.x()) * args.columns;
    for (int i = cta.thread(); i < args.columns; i += kThreads) x[i] += args.bias[i];
  }
};

}  // namespace tidepool::cuda

#endif  // TIDEPOOL_WORKER_KERNELS_CUDA_ROWS_BODY_H_
