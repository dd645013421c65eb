#include "client/cli/size_plan.h"

#include <algorithm>
#include <functional>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "cacheservice/tiers/cache_options.h"
#include "cacheservice/tiers/disk_tier.h"
#include "cacheservice/tiers/memory_policy.h"
#include "cacheservice/tiers/memory_tier.h"
#include "policies/kv/block_codec.h"
#include "worker/backend/backend.h"
#include "worker/engine/pages_needed.h"
#include "worker/kv/compressor.h"
#include "worker/kv/device_shape.h"
#include "worker/kv/key_index.h"
#include "worker/kv/row_recall.h"

namespace tidepool::cli {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kMostBytes = uint64_t{1} << 60;

absl::Status InRange(const char* field, int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, ": ", value, " is not in ", least, " to ", most));
}

// The smallest multiple of a MiB from `least` on of which `usable` gives `wanted`.
uint64_t FlagFor(uint64_t wanted, uint64_t least, const std::function<uint64_t(uint64_t)>& usable) {
  uint64_t low = least / kMiB, high = std::max(low, uint64_t{1});
  while (usable(high * kMiB) < wanted && high < kMostBytes / kMiB) high *= 2;
  while (low < high) {
    const uint64_t middle = low + (high - low) / 2;
    if (usable(middle * kMiB) >= wanted) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return high * kMiB;
}

// What of --memory-bytes is for values.
uint64_t UsableMemory(uint64_t memory_bytes, const std::string& policy) {
  CacheOptions options;
  options.memory_bytes = memory_bytes;
  const MemoryTier tier(
      memory_bytes - options.EffectiveDemotionQueueBytes(), nullptr,
      [&policy](uint64_t limit_bytes, bool alone) { return MakeReplacementPolicy(policy, limit_bytes, alone); });
  return tier.Stats().limit_bytes;
}

void PlanWorker(const SizeQuestion& question, SizePlan* plan) {
  const CompressionSpec& spec = question.compression;
  const DeviceShape shape = DeviceShapeOf(question.layout, spec);
  const int64_t prompt = question.context_tokens - question.answer_tokens;
  const uint64_t page_bytes = kPageSlots * question.layout.row_bytes();
  const int64_t pages = PagesNeeded(spec, shape, {.prompt = prompt, .most = question.context_tokens}, nullptr);
  plan->reserved_bytes = static_cast<uint64_t>(pages) * page_bytes;
  const int64_t answering_rows = Compressor::MostRows(spec, shape, question.context_tokens, question.answer_tokens);
  plan->answering_bytes = static_cast<uint64_t>(static_cast<double>(answering_rows) * shape.row_bytes);
  if (spec.recall.mode != RecallMode::kOff) {
    const IndexSize index = IndexSizeOf(spec.recall.index, question.layout);
    plan->index_bytes =
        static_cast<uint64_t>(index.table_bytes + index.bytes_per_token * static_cast<double>(question.context_tokens));
    plan->index_on_device = spec.recall.placement == IndexPlacement::kDevice;
    const int32_t slots = SplitBudget(spec, shape, question.context_tokens).recall;
    plan->staged_bytes =
        static_cast<uint64_t>(RowRecall::StagedRows(spec.recall, slots) * shape.heads()) * question.layout.row_bytes();
  }
  const auto running = static_cast<uint64_t>(question.running);
  plan->device_kv_bytes = running * plan->reserved_bytes;
  plan->host_bytes = running * (plan->staged_bytes + (plan->index_on_device ? 0 : plan->index_bytes));
}

void PlanCache(const SizeQuestion& question, SizePlan* plan) {
  const int64_t full = question.context_tokens / kBlockTokens, rest = question.context_tokens % kBlockTokens;
  const auto add = [&](int64_t blocks, int tokens) {
    const size_t bytes = BlockValueBytes(question.layout, tokens);
    const uint64_t values = static_cast<uint64_t>(blocks) * static_cast<uint64_t>(question.layout.layers);
    plan->blocks += static_cast<uint64_t>(blocks);
    plan->memory_bytes += values * MemoryTier::CostBytes(bytes);
    plan->disk_bytes += values * DiskTier::CostBytes(bytes);
    plan->remote_bytes += values * bytes;
  };
  add(full, kBlockTokens);
  if (rest > 0) add(1, static_cast<int>(rest));
  const auto sessions = static_cast<uint64_t>(question.sessions);
  plan->memory_flag_bytes =
      FlagFor(sessions * plan->memory_bytes, CacheOptions::kMiB,
              [&question](uint64_t memory_bytes) { return UsableMemory(memory_bytes, question.memory_policy); });
  plan->disk_flag_bytes = FlagFor(sessions * plan->disk_bytes, 16 * CacheOptions::kMiB, [](uint64_t disk_bytes) {
    return disk_bytes - std::min(disk_bytes, DiskTier::ReserveBytes(disk_bytes));
  });
}

}  // namespace

absl::StatusOr<SizePlan> PlanSize(const SizeQuestion& question) {
  TP_RETURN_IF_ERROR(InRange("--context", question.context_tokens, 1, int64_t{1} << 30));
  TP_RETURN_IF_ERROR(InRange("--answer", question.answer_tokens, 0, question.context_tokens - 1));
  TP_RETURN_IF_ERROR(InRange("--running", question.running, 1, 64));
  TP_RETURN_IF_ERROR(InRange("--sessions", question.sessions, 1, 1'000'000));
  TP_RETURN_IF_ERROR(ValidateCompression(question.compression));
  TP_RETURN_IF_ERROR(
      CheckBudget(question.compression, DeviceShapeOf(question.layout, question.compression), question.context_tokens));
  SizePlan plan;
  plan.token_bytes = question.layout.token_bytes();
  plan.full_bytes = static_cast<uint64_t>(question.context_tokens) * plan.token_bytes;
  PlanWorker(question, &plan);
  PlanCache(question, &plan);
  return plan;
}

}  // namespace tidepool::cli
