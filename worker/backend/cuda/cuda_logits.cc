// What comes out of a step: logits, or the best of them.
#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "worker/backend/cuda/cuda_backend.h"

namespace tidepool::cuda {
namespace {

// Slices that want logits: those that want the best alone first.
std::vector<int> OrderOfLogits(absl::Span<const StepSlice> slices) {
  std::vector<int> order;
  for (const bool best : {true, false}) {
    for (size_t i = 0; i < slices.size(); ++i) {
      const StepSlice& slice = slices[i];
      TIDEPOOL_CHECK(slice.best <= kMostBest && (slice.best == 0 || slice.logits_rows <= 1));
      if (slice.logits_rows > 0 && (slice.best > 0) == best) order.push_back(static_cast<int>(i));
    }
  }
  return order;
}

}  // namespace

void CudaBackend::Logits(const Plan& plan) {
  std::vector<int32_t> rows;  // of x
  std::vector<int32_t> first_token(plan.slices.size());
  for (size_t rank = 0; rank < plan.by_rank.size(); ++rank) first_token[plan.by_rank[rank]] = plan.first_token[rank];
  int32_t best_rows = 0, most_best = 0;
  for (const int i : OrderOfLogits(plan.slices)) {
    const StepSlice& slice = plan.slices[i];
    const auto end = first_token[i] + static_cast<int32_t>(slice.tokens.size());
    for (int32_t row = end - slice.logits_rows; row < end; ++row) rows.push_back(row);
    best_rows += slice.best > 0 ? 1 : 0;
    most_best = std::max(most_best, slice.best);
  }
  if (rows.empty()) return;
  const auto count = static_cast<int32_t>(rows.size());
  const auto vocabulary = static_cast<size_t>(config_.vocabulary);
  auto* logits = logits_.Get<float>(rows.size() * vocabulary);
  const Use output[] = {{&weights_->output, nullptr, logits}};
  PrepareRows::Args norm{.op = PrepareRows::Op::kNorm, .columns = config_.width, .x = x_.As<float>()};
  norm.row = uploads_.Upload(absl::MakeConstSpan(rows));
  norm.weight = weights_->output_norm;
  norm.epsilon = config_.rms_epsilon;
  const bool products = count > kMostVectorRows;
  MatMul(output, Prepare(norm, count, output, products), count, products, /*add=*/false);
  if (best_rows > 0) FindBest(best_rows, most_best);
  if (best_rows == count) return;
  const size_t whole = (count - best_rows) * vocabulary;
  device_->CopyToHost(host_logits_.Get<float>(whole), logits + best_rows * vocabulary, whole * sizeof(float));
}

void CudaBackend::FindBest(int32_t rows, int32_t count) {
  BestLogits::Args args{.logits = logits_.As<float>(), .values = config_.vocabulary, .count = count};
  for (int turn = 0;; turn = 1 - turn) {
    const int parts = CeilDiv(args.values, BestLogits::kValues);
    const size_t found = static_cast<size_t>(rows) * parts * count;
    args.best = best_[turn].Get<float>(found);
    args.best_ids = best_ids_[turn].Get<int32_t>(found);
    device_->Launch<BestLogits>({parts, rows}, args);
    if (parts == 1) break;
    args.logits = args.best;
    args.ids = args.best_ids;
    args.values = parts * count;
  }
  const size_t found = static_cast<size_t>(rows) * count;
  device_->CopyToHost(host_best_logits_.Get<float>(found), args.best, found * sizeof(float));
  device_->CopyToHost(host_best_ids_.Get<int32_t>(found), args.best_ids, found * sizeof(int32_t));
}

void CudaBackend::HandOutLogits(const Plan& plan) const {
  const float* logits = host_logits_.As<float>();
  const float* best = host_best_logits_.As<float>();
  const int32_t* ids = host_best_ids_.As<int32_t>();
  int32_t most_best = 0;
  for (const StepSlice& slice : plan.slices) most_best = std::max(most_best, slice.logits_rows > 0 ? slice.best : 0);
  for (const int i : OrderOfLogits(plan.slices)) {
    const StepSlice& slice = plan.slices[i];
    if (slice.best == 0) {
      const size_t floats = static_cast<size_t>(slice.logits_rows) * config_.vocabulary;
      std::memcpy(slice.logits, logits, floats * sizeof(float));
      logits += floats;
      continue;
    }
    slice.best_logits->clear();
    for (int32_t n = 0; n < slice.best && ids[n] >= 0; ++n) slice.best_logits->push_back({best[n], ids[n]});
    best += most_best;
    ids += most_best;
  }
}

}  // namespace tidepool::cuda
