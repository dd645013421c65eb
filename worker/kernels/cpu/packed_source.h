// The integer types of GGUF taken apart: stored values, scales and minima of one row and 32 inputs.
#ifndef TIDEPOOL_WORKER_KERNELS_CPU_PACKED_SOURCE_H_
#define TIDEPOOL_WORKER_KERNELS_CPU_PACKED_SOURCE_H_

#include <cstdint>

#include "worker/kernels/cpu/packed_format.h"
#include "worker/model/tensor_view.h"

namespace tidepool {

// The format that keeps a tensor's values as they are.
PackedFormat FormatOf(TensorType type);

// weight[i] = scale * (values[i] - offset) + minimum, offset as FactsOf says. Scales are float16 bits or float32, as
// the format's wide_scales says; the other field is unused.
struct SourceBlock {
  uint8_t values[kBlockInputs];
  uint16_t half_scale, half_minimum;
  float scale[2];  // of inputs 0..15 and 16..31; the second only where the format has two
  float minimum;
};

// Inputs [32 * block, 32 * block + 32) of a row. `row` is the first byte of the row, `type` an integer type.
SourceBlock ReadSourceBlock(TensorType type, const uint8_t* row, int64_t block);

// Little endian; IEEE half precision.
uint16_t Load16(const uint8_t* p);
float HalfToFloat(uint16_t half);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_KERNELS_CPU_PACKED_SOURCE_H_
