// Matrices packed for the CPU's int8 dot products, activations quantised for them, and their product.
// Quantised weights stay quantised (4, 5, 6 or 8 bits as in the file, 5 and 6 bits in bytes); scales keep their
// precision. A row of the result depends only on the matrix and that row's activations: never on the other rows of a
// batch, on the number of threads, or on how a call was split.
#ifndef TIDEPOOL_WORKER_KERNELS_CPU_MATMUL_H_
#define TIDEPOOL_WORKER_KERNELS_CPU_MATMUL_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "worker/kernels/cpu/huge_memory.h"
#include "worker/kernels/cpu/thread_team.h"
#include "worker/model/tensor_view.h"

namespace tidepool {

class PackedMatrix {
 public:
  PackedMatrix();
  PackedMatrix(PackedMatrix&&) noexcept;
  PackedMatrix& operator=(PackedMatrix&&) noexcept;
  ~PackedMatrix();
  // as_f32: dequantise to float32 (debugging and reference tests: then nothing is quantised, activations included).
  // Its bytes are taken from `memory`, which has to outlive it.
  static PackedMatrix Pack(const TensorView& tensor, bool as_f32, ThreadTeam& team, HugeMemory& memory);

  int64_t rows() const;     // outputs
  int64_t columns() const;  // inputs
  size_t bytes() const;
  bool is_float() const;  // multiplies float32 activations; else int8 ones
  // Row `row` as float32, bit for bit what DequantizeRow of the tensor gives.
  void ReadRow(int64_t row, float* out) const;

  struct Data;
  const Data& data() const { return *data_; }

 private:
  std::unique_ptr<Data> data_;
};

// A batch of activation rows in the forms that matrices need: float32 kept by reference, int8 made on demand once.
// Buffers are reused: make one per place in the layer and Set it again.
class Activations {
 public:
  Activations();
  ~Activations();
  // x: [count][columns] float32, must stay alive and unchanged until the last product. Quantises when `quantized`.
  // fill(first, last), where given, writes these rows of x, right before the same thread quantises them; any rows may
  // be written at once.
  void Set(const float* x, int64_t count, int64_t columns, bool quantized, ThreadTeam& team);
  void Set(const float* x, int64_t count, int64_t columns, bool quantized, ThreadTeam& team,
           absl::FunctionRef<void(int64_t, int64_t)> fill);

  struct Data;
  const Data& data() const { return *data_; }

 private:
  std::unique_ptr<Data> data_;
};

struct MatMulTask {
  const PackedMatrix* matrix = nullptr;
  const float* bias = nullptr;  // [rows], added; or null
  float* out = nullptr;         // [count][out_stride]
  int64_t out_stride = 0;       // >= rows
};

// out[c] = matrix * x[c] + bias for every row c of the activations and every task, in one parallel region.
// All matrices have the activations' number of columns.
void MatMul(absl::Span<const MatMulTask> tasks, const Activations& x, ThreadTeam& team);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KERNELS_CPU_MATMUL_H_
