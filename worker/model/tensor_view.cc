#include "worker/model/tensor_view.h"

#include "base/check.h"

namespace tidepool {
namespace {

struct TypeFacts {
  TensorType type;
  const char* name;
  int elements;  // of one block
  int bytes;     // of one block
};

// Sizes: GGUF specification (ggml-org/ggml docs/gguf.md) and the block layouts in dequantize.cc.
constexpr TypeFacts kTypes[] = {
    {TensorType::kF32, "F32", 1, 4},       {TensorType::kF16, "F16", 1, 2},       {TensorType::kBF16, "BF16", 1, 2},
    {TensorType::kQ4_0, "Q4_0", 32, 18},   {TensorType::kQ4_1, "Q4_1", 32, 20},   {TensorType::kQ5_0, "Q5_0", 32, 22},
    {TensorType::kQ5_1, "Q5_1", 32, 24},   {TensorType::kQ8_0, "Q8_0", 32, 34},   {TensorType::kQ4_K, "Q4_K", 256, 144},
    {TensorType::kQ5_K, "Q5_K", 256, 176}, {TensorType::kQ6_K, "Q6_K", 256, 210},
};

const TypeFacts* Find(TensorType type) {
  for (const TypeFacts& facts : kTypes) {
    if (facts.type == type) return &facts;
  }
  return nullptr;
}

const TypeFacts& Facts(TensorType type) {
  const TypeFacts* facts = Find(type);
  TIDEPOOL_CHECK(facts != nullptr);
  return *facts;
}

}  // namespace

bool IsSupportedTensorType(uint32_t type) { return Find(static_cast<TensorType>(type)) != nullptr; }
const char* TensorTypeName(TensorType type) { return Facts(type).name; }
int BlockElements(TensorType type) { return Facts(type).elements; }
int BlockBytes(TensorType type) { return Facts(type).bytes; }

}  // namespace tidepool
