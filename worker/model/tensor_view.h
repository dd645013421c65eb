// A tensor of a model file where it lies (memory-mapped), in one of the GGUF types we read.
#ifndef TIDEPOOL_WORKER_MODEL_TENSOR_VIEW_H_
#define TIDEPOOL_WORKER_MODEL_TENSOR_VIEW_H_

#include <cstddef>
#include <cstdint>
#include <string>

namespace tidepool {

// Values as in the file format (ggml type ids).
enum class TensorType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kBF16 = 30,
};

// Whether a type id of a file is one of the above. The functions below must not be called with any other.
bool IsSupportedTensorType(uint32_t type);
const char* TensorTypeName(TensorType type);
// Elements and bytes of one quantisation block (1 element for F32, F16, BF16).
int BlockElements(TensorType type);
int BlockBytes(TensorType type);

// A matrix [rows][columns], rows contiguous (GGUF ne[1], ne[0]); a vector has rows == 1. The model owns the bytes.
struct TensorView {
  std::string name;
  TensorType type = TensorType::kF32;
  int64_t rows = 0;
  int64_t columns = 0;  // a multiple of BlockElements(type)
  const uint8_t* data = nullptr;

  size_t row_bytes() const { return static_cast<size_t>(columns / BlockElements(type)) * BlockBytes(type); }
  size_t bytes() const { return row_bytes() * static_cast<size_t>(rows); }
  bool empty() const { return data == nullptr; }
};

// Row `row` as float32, bit for bit what the `gguf` package's reference dequantisation gives.
void DequantizeRow(const TensorView& tensor, int64_t row, float* out);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_MODEL_TENSOR_VIEW_H_
