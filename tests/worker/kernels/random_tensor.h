// Tensors of every GGUF type with random contents, for tests of kernels.
#ifndef TIDEPOOL_TESTS_WORKER_KERNELS_RANDOM_TENSOR_H_
#define TIDEPOOL_TESTS_WORKER_KERNELS_RANDOM_TENSOR_H_

#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "worker/model/tensor_view.h"

namespace tidepool {

struct OwnedTensor {
  std::vector<uint8_t> bytes;
  TensorView view;
};

// Offsets of the float16 fields in a block: their bits must be finite numbers of an ordinary size.
inline std::vector<int> HalfFields(TensorType type) {
  switch (type) {
    case TensorType::kQ4_0:
    case TensorType::kQ5_0:
    case TensorType::kQ8_0: return {0};
    case TensorType::kQ4_1:
    case TensorType::kQ5_1:
    case TensorType::kQ4_K:
    case TensorType::kQ5_K: return {0, 2};
    case TensorType::kQ6_K: return {208};
    default: return {};
  }
}

inline OwnedTensor RandomTensor(TensorType type, int64_t rows, int64_t columns, uint32_t seed) {
  std::mt19937 random(seed);
  OwnedTensor tensor;
  tensor.view = {.name = TensorTypeName(type), .type = type, .rows = rows, .columns = columns};
  tensor.bytes.resize(tensor.view.bytes());
  tensor.view.data = tensor.bytes.data();
  for (uint8_t& byte : tensor.bytes) byte = static_cast<uint8_t>(random());
  // Sign, exponent 2^-7 .. 1, any mantissa; of a super-block, whose weights are up to 4000 times as large, 2^-13 ..
  // 2^-6.
  const int exponent = BlockElements(type) == 256 ? 2 : 8;
  auto half = [&] { return static_cast<uint16_t>((random() & 0x83ff) | ((exponent + random() % 8) << 10)); };
  const int block_bytes = BlockBytes(type);
  for (size_t at = 0; at < tensor.bytes.size(); at += block_bytes) {
    for (int field : HalfFields(type)) {
      const uint16_t value = half();
      std::memcpy(&tensor.bytes[at + field], &value, sizeof value);
    }
    if (type == TensorType::kF32) {
      const float value = static_cast<float>(static_cast<int32_t>(random())) * 0x1p-31f;
      std::memcpy(&tensor.bytes[at], &value, sizeof value);
    } else if (type == TensorType::kF16) {
      const uint16_t value = half();
      std::memcpy(&tensor.bytes[at], &value, sizeof value);
    } else if (type == TensorType::kBF16) {
      const uint16_t value = static_cast<uint16_t>((random() & 0x807f) | ((120 + random() % 8) << 7));
      std::memcpy(&tensor.bytes[at], &value, sizeof value);
    }
  }
  return tensor;
}

}  // namespace tidepool

#endif  // TIDEPOOL_TESTS_WORKER_KERNELS_RANDOM_TENSOR_H_
