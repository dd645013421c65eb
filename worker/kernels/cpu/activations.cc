#include "worker/kernels/cpu/activations.h"

#include <algorithm>
#include <atomic>

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
  // A region costs as much as quantising some thousands of numbers, and what fills rows takes longer.
  constexpr int64_t kGrainBlocks = 256, kFewRows = 4, kFewBlocks = 128;
  if (!quantized) return team.ForEach(count, kFewRows, fill);
  TIDEPOOL_CHECK(columns % kBlockInputs == 0);
  if (data.blocks.size() < static_cast<size_t>(count * row_blocks)) data.blocks.resize(count * row_blocks);
  const MatMulKernels& kernels = MatMulKernelsOf(ActiveIsa());
  const int64_t grain = (kGrainBlocks / kPanelRows + row_blocks - 1) / row_blocks * kPanelRows;
  if (count > grain) {
    return team.ForEach(count, grain, [&](int64_t first, int64_t last) {
      fill(first, last);
      kernels.quantize(x + first * columns, last - first, columns, 0, row_blocks,
                       data.blocks.data() + first * row_blocks);
    });
  }
  if (count <= kFewRows || count * row_blocks < kFewBlocks || team.size() == 1) {
    team.ForEach(count, kFewRows, fill);
    return kernels.quantize(x, count, columns, 0, row_blocks, data.blocks.data());
  }
  // A panel's rows lie side by side: one thread writes all of them, of some blocks, once all are filled.
  constexpr int64_t kTogether = 4;
  const int64_t share = std::max(kTogether, row_blocks / team.size() / kTogether * kTogether);
  const int64_t rows = (count + team.size() - 1) / team.size();
  std::atomic<int64_t> next_row{0}, next_block{0}, filled{0};
  team.Run([&](int) {
    for (int64_t first = next_row.fetch_add(rows); first < count; first = next_row.fetch_add(rows)) {
      const int64_t last = std::min(first + rows, count);
      fill(first, last);
      filled.fetch_add(last - first, std::memory_order_release);
    }
    ThreadTeam::WaitUntil([&] { return filled.load(std::memory_order_acquire) == count; });
    for (int64_t first = next_block.fetch_add(share); first < row_blocks; first = next_block.fetch_add(share)) {
      kernels.quantize(x, count, columns, first, std::min(first + share, row_blocks), data.blocks.data());
    }
  });
}

}  // namespace tidepool
