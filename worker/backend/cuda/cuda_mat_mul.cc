// Matrix products of the `cuda` backend: by MatVec and MatTile for a few rows, else by the library with the weights as
// halves.
#include <algorithm>

#include "worker/backend/cuda/cuda_backend.h"

namespace tidepool::cuda {
namespace {

constexpr int kShortRow = 1024;  // columns for which a warp's CTA is enough
constexpr int kRowParts = 8;     // of a row of activations that needs no sum over all of it

bool IsFloat(const DeviceMatrix& matrix) { return FactsOf(matrix.format).scales == 0; }

// As many matrices of one format as a launch takes.
template <class Kernel, class Uses>
void LaunchMatVec(Device& device, const Uses& uses, const DeviceActivations& x, int32_t first, int32_t count,
                  bool add) {
  MatVecArgs args;
  args.part_count = static_cast<int32_t>(uses.size());
  args.count = count;
  args.add = add;
  int ctas = 0;
  for (size_t i = 0; i < uses.size(); ++i) {
    MatVecPart& part = args.parts[i];
    part.matrix = *uses[i].matrix;
    part.bias = uses[i].bias;
    part.stride = part.matrix.rows;
    part.out = uses[i].out + static_cast<int64_t>(first) * part.stride;
    part.first_cta = ctas;
    ctas += Kernel::Ctas(part.matrix.rows);
  }
  const int64_t columns = uses[0].matrix->columns, blocks = columns / kBlock;
  args.x.floats = x.floats != nullptr ? x.floats + first * columns : nullptr;
  args.x.halves = x.halves != nullptr ? x.halves + first * columns : nullptr;
  args.x.values = x.values != nullptr ? x.values + first * columns : nullptr;
  args.x.scales = x.scales != nullptr ? x.scales + first * blocks : nullptr;
  args.x.sums = x.sums != nullptr ? x.sums + first * blocks : nullptr;
  device.Launch<Kernel>({ctas}, args);
}

template <MatrixFormat kFormat, int kThreads, class Uses>
void LaunchVectors(Device& device, const Uses& uses, const DeviceActivations& x, int32_t first, int32_t rows,
                   bool add) {
  if (rows == 1) return LaunchMatVec<MatVec<kFormat, 1, kThreads>>(device, uses, x, first, rows, add);
  if constexpr (FactsOf(kFormat).scales == 0) {
    if (rows <= 4) return LaunchMatVec<MatVec<kFormat, 4, kThreads>>(device, uses, x, first, rows, add);
    LaunchMatVec<MatVec<kFormat, 8, kThreads>>(device, uses, x, first, rows, add);
  }
}

template <MatrixFormat kFormat, class Uses>
void LaunchForCount(Device& device, const Uses& uses, const DeviceActivations& x, int32_t first, int32_t rows,
                    bool add) {
  if (rows == 1 || FactsOf(kFormat).scales == 0) {
    if (uses[0].matrix->columns <= kShortRow) return LaunchVectors<kFormat, 32>(device, uses, x, first, rows, add);
    return LaunchVectors<kFormat, 128>(device, uses, x, first, rows, add);
  }
  if constexpr (FactsOf(kFormat).scales != 0) {
    if (rows <= 8) return LaunchMatVec<MatTile<kFormat, 1>>(device, uses, x, first, rows, add);
    if (rows <= 16) return LaunchMatVec<MatTile<kFormat, 2>>(device, uses, x, first, rows, add);
    if (rows <= 32) return LaunchMatVec<MatTile<kFormat, 4>>(device, uses, x, first, rows, add);
    LaunchMatVec<MatTile<kFormat, 8>>(device, uses, x, first, rows, add);
  }
}

}  // namespace

DeviceActivations CudaBackend::Prepare(PrepareRows::Args args, int32_t count, absl::Span<const Use> uses,
                                       bool products) {
  const size_t elements = static_cast<size_t>(count) * args.columns, blocks = elements / kBlock;
  for (const Use& use : uses) {
    const bool floats = IsFloat(*use.matrix);
    if (products ? use.matrix->format != MatrixFormat::kF32 : !floats && count > 1) {
      args.halves = form_halves_.Get<uint16_t>(elements);
    } else if (floats || products) {
      args.floats = form_floats_.Get<float>(elements);
    } else {
      args.values = form_values_.Get<int8_t>(elements);
      args.scales = form_scales_.Get<float>(blocks);
      args.sums = form_sums_.Get<float>(blocks);
    }
  }
  const int parts =
      args.op == PrepareRows::Op::kNorm ? 1 : std::min(kRowParts, CeilDiv(args.columns, PrepareRows::kThreads));
  device_->Launch<PrepareRows>({count, parts}, args);
  return {args.floats, args.halves, args.values, args.scales, args.sums};
}

void CudaBackend::MatMul(absl::Span<const Use> uses, const DeviceActivations& x, int32_t count, bool products,
                         bool add) {
  if (!products) return MatMulByVectors(uses, x, count, add);
  for (const Use& use : uses) MatMulByLibrary(use, count, add);
}

void CudaBackend::MatMulByVectors(absl::Span<const Use> uses, const DeviceActivations& x, int32_t count, bool add) {
  for (size_t begin = 0; begin < uses.size();) {
    size_t end = begin + 1;
    while (end < uses.size() && uses[end].matrix->format == uses[begin].matrix->format) ++end;
    const absl::Span<const Use> alike = uses.subspan(begin, end - begin);
    const int32_t at_once = IsFloat(*alike[0].matrix) ? 8 : 64;
    for (int32_t first = 0; first < count; first += at_once) {
      const int32_t rows = std::min(at_once, count - first);
      ForFormat(alike[0].matrix->format,
                [&]<MatrixFormat kFormat>() { LaunchForCount<kFormat>(*device_, alike, x, first, rows, add); });
    }
    begin = end;
  }
}

void CudaBackend::MatMulByLibrary(const Use& use, int32_t count, bool add) {
  const DeviceMatrix& matrix = *use.matrix;
  Product product;
  product.halves = matrix.format != MatrixFormat::kF32;
  product.m = count;
  product.n = matrix.rows;
  product.k = matrix.columns;
  product.out = use.out;
  product.add = add;
  if (!product.halves) {
    product.a = form_floats_.As<float>();
    product.w = matrix.values;
  } else {
    product.a = form_halves_.As<uint16_t>();
    product.w = matrix.values;
    if (matrix.format != MatrixFormat::kF16) {
      const size_t elements = static_cast<size_t>(matrix.rows) * matrix.columns;
      Dequantize::Args dequantize{matrix, weights_as_halves_.Get<uint16_t>(elements), nullptr};
      device_->Launch<Dequantize>({CeilDiv(static_cast<int64_t>(elements / kBlock), Dequantize::kThreads)}, dequantize);
      product.w = dequantize.halves;
    }
  }
  device_->Multiply(product);
  if (use.bias != nullptr) device_->Launch<AddBias>({count}, {use.bias, use.out, matrix.rows});
}

}  // namespace tidepool::cuda
