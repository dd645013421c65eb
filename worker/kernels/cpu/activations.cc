#include "worker/kernels/cpu/activations.h"

#include "base/check.h"
#include "worker/kernels/cpu/isa.h"
#include "worker/kernels/cpu/matmul_dispatch.h"

namespace tidepool {

Activations::Activations() : data_(std::make_unique<Data>()) {}
Activations::~Activations() = default;

void Activations::Set(const float* x, int64_t count, int64_t columns, bool quantized, ThreadTeam& team) {
  Set(x, count, columns, quantized, team, [](int64_t, int64_t) {});
}

void Activations::Set(const float* x, int64_t count, int64_t columns, bool quantized, ThreadTeam& team,
                      absl::FunctionRef<void(int64_t, int64_t)> fill) {
  TIDEPOOL_CHECK(count >= 0 && columns > 0);
  Data& data = *data_;
  data.x = x;
  data.count = count;
  data.columns = columns;
  data.quantized = quantized;
  if (count == 0) return;
  const int64_t row_blocks = (columns + kBlockInputs - 1) / kBlockInputs;
  // A region costs as much as quantising some thousands of numbers: few rows are quantised on this thread. What fills
  // them takes longer.
  constexpr int64_t kGrainBlocks = 256, kFewRows = 4;
  const int64_t grain = (kGrainBlocks / kPanelRows + row_blocks - 1) / row_blocks * kPanelRows;
  if (!quantized || count <= grain) team.ForEach(count, kFewRows, fill);
  if (!quantized) return;
  TIDEPOOL_CHECK(columns % kBlockInputs == 0);
  if (data.blocks.size() < static_cast<size_t>(count * row_blocks)) data.blocks.resize(count * row_blocks);
  const MatMulKernels& kernels = MatMulKernelsOf(ActiveIsa());
  team.ForEach(count, grain, [&](int64_t first, int64_t last) {
    if (count > grain) fill(first, last);
    kernels.quantize(x + first * columns, last - first, columns, data.blocks.data() + first * row_blocks);
  });
}

}  // namespace tidepool
