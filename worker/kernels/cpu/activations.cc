#include "worker/kernels/cpu/activations.h"

#include "base/check.h"
#include "worker/kernels/cpu/isa.h"
#include "worker/kernels/cpu/matmul_dispatch.h"

namespace tidepool {

Activations::Activations() : data_(std::make_unique<Data>()) {}
Activations::~Activations() = default;

void Activations::Set(const float* x, int64_t count, int64_t columns, bool quantized, ThreadTeam& team) {
  TIDEPOOL_CHECK(count >= 0 && columns > 0);
  Data& data = *data_;
  data.x = x;
  data.count = count;
  data.columns = columns;
  data.quantized = quantized;
  if (!quantized || count == 0) return;
  TIDEPOOL_CHECK(columns % kBlockInputs == 0);
  const int64_t row_blocks = columns / kBlockInputs;
  if (data.blocks.size() < static_cast<size_t>(count * row_blocks)) data.blocks.resize(count * row_blocks);
  const MatMulKernels& kernels = MatMulKernelsOf(ActiveIsa());
  // A region costs as much as quantising some thousands of numbers: few rows stay on this thread.
  constexpr int64_t kGrainBlocks = 256;
  const int64_t grain = (kGrainBlocks + row_blocks - 1) / row_blocks;
  team.ForEach(count, grain, [&](int64_t first, int64_t last) {
    kernels.quantize(x + first * columns, (last - first) * row_blocks, data.blocks.data() + first * row_blocks);
  });
}

}  // namespace tidepool
