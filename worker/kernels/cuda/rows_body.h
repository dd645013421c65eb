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
    const int64_t blocks = args.matrix.columns / kBlock,
                  index = static_cast<int64_t>(cta.x()) * kThreads + cta.thread();
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
            const float a = ClampedToHalfRange(values[8 * i + 2 * k]),
                        b = ClampedToHalfRange(values[8 * i + 2 * k + 1]);
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

// Quantises blocks of 32 columns, kEach of them in a lane: y ~ scale * value, symmetric, to nearest even. By all lanes
// of a warp; `exists`: of the block. A number that is not finite makes scale and sum of its block NaN.
template <int kEach, class Cta>
TP_KERNEL void QuantizeColumns(Cta& cta, const float (&y)[kEach], bool exists, int8_t* values, float* scale_of_block,
                               float* sum_of_block) {
  constexpr int kLanes = kBlock / kEach;
  float largest[1] = {0}, odd = 0;
  for (float value : y) {
    largest[0] = fmaxf(largest[0], fabsf(value));
    odd += value - value;  // 0, else NaN
  }
  cta.template GroupMax<kLanes>(largest);
  const float scale = largest[0] / 127.0f;
  float total[1] = {odd};
  int8_t codes[kEach];
  for (int i = 0; i < kEach; ++i) {
    const float code = scale > 0 && odd == 0 ? rintf(y[i] / scale) : 0.0f;
    codes[i] = static_cast<int8_t>(code);
    total[0] += code;
  }
  cta.template GroupSum<kLanes>(total);
  if (!exists) return;
  if constexpr (kEach == 4) {
    uint32_t word;
    memcpy(&word, codes, sizeof word);
    *reinterpret_cast<uint32_t*>(values) = word;
  } else {
    for (int i = 0; i < kEach; ++i) values[i] = codes[i];
  }
  if (cta.thread() % kLanes == 0) {
    *scale_of_block = total[0] - total[0] == 0 ? scale : total[0] - total[0];
    *sum_of_block = scale * total[0];
  }
}

// y = x (kCopy), x normalised and weighted (kNorm, RMS), or silu(x) * up (kSilu), in the forms that are wanted.
// grid.x: rows; grid.y: parts of a row (1 for kNorm). Bytes: the inputs once (kNorm: twice, from cache), the forms
// once.
struct PrepareRows {
  static constexpr int kThreads = 512;
  static constexpr int kEach = 4;                  // columns of a thread, at a time
  static constexpr int kWarpColumns = 32 * kEach;  // of a warp
  static constexpr int kGroup = kBlock / kEach;    // lanes of a block
  enum class Op : uint8_t { kCopy, kNorm, kSilu };
  struct Args {
    Op op = Op::kCopy;
    int32_t columns = 0;            // a multiple of 32
    const float* x = nullptr;       // [rows][columns]
    const int32_t* row = nullptr;   // null, or which row of x is the i-th
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
      for (int column = cta.thread() * kEach; column < args.columns; column += kThreads * kEach) {
        float values[kEach];
        Load(x + column, values);
        for (float value : values) squares += value * value;
      }
      squares = cta.WarpSum(squares);
      if (lane == 0) shared.squares[warp] = squares;
      cta.Sync();
      float sum = 0;
      for (int i = 0; i < kThreads / 32; ++i) sum += shared.squares[i];
      factor = 1.0f / sqrtf(sum / static_cast<float>(args.columns) + args.epsilon);
    }
    const int step = kThreads * kEach * cta.grid().y;
    for (int first = (cta.y() * (kThreads / 32) + warp) * kWarpColumns; first < args.columns; first += step) {
      PutColumns(cta, args, x, out_row, first + lane * kEach, factor);
    }
  }

 private:
  TP_KERNEL static void Load(const float* from, float (&out)[kEach]) {
    const Words4 words = LoadWords(from);
    memcpy(out, &words, sizeof words);
  }

  // kEach columns of a lane; not all lanes of the last warp have any.
  template <class Cta>
  TP_KERNEL static void PutColumns(Cta& cta, const Args& args, const float* x, int64_t out_row, int column,
                                   float factor) {
    const bool exists = column < args.columns;
    const int64_t at = out_row * args.columns + column;
    float y[kEach] = {};
    if (exists) {
      Load(x + column, y);
      if (args.op != Op::kCopy) {
        float other[kEach];
        Load(args.op == Op::kNorm ? args.weight + column : args.up + at, other);
        for (int i = 0; i < kEach; ++i) {
          y[i] = args.op == Op::kNorm ? y[i] * factor * other[i] : y[i] / (1.0f + expf(-y[i])) * other[i];
        }
      }
      if (args.floats != nullptr) {
        Words4 words;
        memcpy(&words, y, sizeof words);
        StoreWords(args.floats + at, words);
      }
      if (args.halves != nullptr) {
        for (int i = 0; i < kEach; ++i) args.halves[at + i] = FloatToHalf(ClampedToHalfRange(y[i]));
      }
    }
    if (args.values == nullptr) return;  // for all
    QuantizeColumns<kEach>(cta, y, exists, args.values + at, args.scales + at / kBlock, args.sums + at / kBlock);
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
