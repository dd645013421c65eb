#include "worker/rpc/convert_compression.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace tidepool {
namespace {

// What a wire value means. Unspecified, 0, is nowhere: the spec stays as it is.
template <typename Wire, typename Value>
struct Meaning {
  Wire wire;
  Value value;
};

template <typename Wire, typename Value, size_t n>
absl::Status Choose(const char* field, const Meaning<Wire, Value> (&meanings)[n], Wire wire, Value& value) {
  if (static_cast<int>(wire) == 0) return absl::OkStatus();
  for (const Meaning<Wire, Value>& meaning : meanings) {
    if (meaning.wire != wire) continue;
    value = meaning.value;
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("compression.", field, ": ", static_cast<int>(wire), " is not known"));
}

constexpr Meaning<v1::KvPrecision, KvPrecision> kPrecisions[] = {{v1::KV_PRECISION_F16, KvPrecision::kF16},
                                                                 {v1::KV_PRECISION_INT8, KvPrecision::kInt8},
                                                                 {v1::KV_PRECISION_KIVI4, KvPrecision::kKivi4},
                                                                 {v1::KV_PRECISION_KIVI2, KvPrecision::kKivi2}};
constexpr Meaning<v1::RecallMode, RecallMode> kRecallModes[] = {{v1::RECALL_MODE_OFF, RecallMode::kOff},
                                                                {v1::RECALL_MODE_ASYNC, RecallMode::kAsync},
                                                                {v1::RECALL_MODE_SYNC, RecallMode::kSync}};
constexpr Meaning<v1::RecallIndex, RecallIndex> kRecallIndexes[] = {
    {v1::RECALL_INDEX_K4, RecallIndex::kK4},       {v1::RECALL_INDEX_PQ16X4, RecallIndex::kPq16x4},
    {v1::RECALL_INDEX_PQ8X8, RecallIndex::kPq8x8}, {v1::RECALL_INDEX_EXACT, RecallIndex::kExact},
    {v1::RECALL_INDEX_PAGE8, RecallIndex::kPage8}, {v1::RECALL_INDEX_PAGE16, RecallIndex::kPage16}};
constexpr Meaning<v1::IndexPlacement, IndexPlacement> kPlacements[] = {
    {v1::INDEX_PLACEMENT_HOST, IndexPlacement::kHost}, {v1::INDEX_PLACEMENT_DEVICE, IndexPlacement::kDevice}};
constexpr Meaning<v1::OnRecallLoss, OnRecallLoss> kOnLoss[] = {
    {v1::ON_RECALL_LOSS_CONTINUE, OnRecallLoss::kContinue},
    {v1::ON_RECALL_LOSS_FAIL, OnRecallLoss::kFail},
    {v1::ON_RECALL_LOSS_RECOMPUTE, OnRecallLoss::kRecompute}};
constexpr Meaning<v1::RecallTrigger, RecallTrigger> kTriggers[] = {{v1::RECALL_TRIGGER_SCORE, RecallTrigger::kScore},
                                                                   {v1::RECALL_TRIGGER_COSINE, RecallTrigger::kCosine}};
constexpr Meaning<v1::SelectScope, SelectScope> kSelectScopes[] = {{v1::SELECT_SCOPE_HEAD, SelectScope::kHead},
                                                                   {v1::SELECT_SCOPE_LAYER, SelectScope::kLayer},
                                                                   {v1::SELECT_SCOPE_FILTER, SelectScope::kFilter}};
constexpr Meaning<v1::DecodeBudget, DecodeBudget> kDecodeBudgets[] = {
    {v1::DECODE_BUDGET_HELD, DecodeBudget::kHeld}, {v1::DECODE_BUDGET_PUBLISHED, DecodeBudget::kPublished}};
constexpr Meaning<v1::PrefillMode, PrefillMode> kPrefillModes[] = {{v1::PREFILL_MODE_WHOLE, PrefillMode::kWhole},
                                                                   {v1::PREFILL_MODE_CHUNKED, PrefillMode::kChunked}};
constexpr Meaning<v1::LayerBudget, LayerBudgetRule> kLayerBudgets[] = {
    {v1::LAYER_BUDGET_UNIFORM, LayerBudgetRule::kUniform},
    {v1::LAYER_BUDGET_PYRAMID, LayerBudgetRule::kPyramid},
    {v1::LAYER_BUDGET_ADA_PYRAMID, LayerBudgetRule::kAdaPyramid},
    {v1::LAYER_BUDGET_VARIANCE, LayerBudgetRule::kVariance},
    {v1::LAYER_BUDGET_LAZY, LayerBudgetRule::kLazy},
    {v1::LAYER_BUDGET_EQUAL_MASS, LayerBudgetRule::kEqualMass},
    {v1::LAYER_BUDGET_BEST_ROWS, LayerBudgetRule::kBestRows}};
constexpr Meaning<v1::HeadBudget, HeadBudgetRule> kHeadBudgets[] = {
    {v1::HEAD_BUDGET_UNIFORM, HeadBudgetRule::kUniform},
    {v1::HEAD_BUDGET_ADA, HeadBudgetRule::kAda},
    {v1::HEAD_BUDGET_LAYER_SET, HeadBudgetRule::kLayerSet},
    {v1::HEAD_BUDGET_NEEDED, HeadBudgetRule::kNeeded}};
constexpr Meaning<v1::EvictionSchedule, Schedule> kSchedules[] = {
    {v1::EVICTION_SCHEDULE_PREFILL, Schedule::kPrefill},
    {v1::EVICTION_SCHEDULE_PREFILL_AND_STEP, Schedule::kPrefillAndStep},
    {v1::EVICTION_SCHEDULE_FIRST_STEP, Schedule::kFirstStep}};
constexpr Meaning<v1::Fate, Fate> kFates[] = {
    {v1::FATE_DROP, Fate::kDrop}, {v1::FATE_MERGE, Fate::kMerge}, {v1::FATE_MERGE_NEAREST, Fate::kMergeNearest}};
constexpr Meaning<v1::Pooling, Pooling> kPoolings[] = {
    {v1::POOLING_NONE, Pooling::kNone}, {v1::POOLING_AVERAGE, Pooling::kAvg}, {v1::POOLING_MAX, Pooling::kMax}};
constexpr Meaning<v1::GroupReduce, GroupReduce> kGroupReduces[] = {{v1::GROUP_REDUCE_MEAN, GroupReduce::kMean},
                                                                   {v1::GROUP_REDUCE_MAX, GroupReduce::kMax},
                                                                   {v1::GROUP_REDUCE_SUM, GroupReduce::kSum}};

absl::Status StagesFrom(const v1::CompressionParams& params, CompressionSpec& spec) {
  TP_RETURN_IF_ERROR(Choose("layer_budget", kLayerBudgets, params.layer_budget(), spec.layer_budget));
  TP_RETURN_IF_ERROR(Choose("head_budget", kHeadBudgets, params.head_budget(), spec.head_budget));
  TP_RETURN_IF_ERROR(Choose("schedule", kSchedules, params.schedule(), spec.schedule));
  TP_RETURN_IF_ERROR(Choose("fate", kFates, params.fate(), spec.fate));
  TP_RETURN_IF_ERROR(Choose("pooling", kPoolings, params.pooling(), spec.pooling));
  TP_RETURN_IF_ERROR(Choose("group_reduce", kGroupReduces, params.group_reduce(), spec.group_reduce));
  if (!params.score().empty()) spec.score = params.score();
  for (const auto& [name, value] : params.score_options()) spec.score_options[name] = value;
  return absl::OkStatus();
}

absl::Status BudgetFrom(const v1::CompressionParams& params, CompressionSpec& spec) {
  auto positive = [](const char* field, int64_t value) {
    if (value >= 1) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("compression.", field, ": ", value, " is not at least 1"));
  };
  if (params.has_budget_fraction()) spec.budget_fraction = params.budget_fraction();
  if (params.has_budget_tokens()) {
    TP_RETURN_IF_ERROR(positive("budget_tokens", params.budget_tokens()));
    spec.budget_tokens = params.budget_tokens();
  }
  if (params.has_budget_bytes()) {
    TP_RETURN_IF_ERROR(positive("budget_bytes", params.budget_bytes()));
    spec.budget_bytes = params.budget_bytes();
  }
  TP_RETURN_IF_ERROR(Choose("decode_budget", kDecodeBudgets, params.decode_budget(), spec.decode_budget));
  if (params.has_decode_interval()) spec.decode_interval = params.decode_interval();
  TP_RETURN_IF_ERROR(Choose("prefill", kPrefillModes, params.prefill(), spec.prefill));
  if (params.has_prefill_chunk()) spec.prefill_chunk = params.prefill_chunk();
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CompressionSpec> CompressionFrom(const v1::CompressionParams& params, bool for_session) {
  if (params.preset().empty()) {
    if (params.ByteSizeLong() > 0) {
      return absl::InvalidArgumentError("compression.preset: is empty, but other fields of compression are set");
    }
    CompressionSpec spec;
    if (for_session) spec.preset.clear();
    return spec;
  }
  absl::StatusOr<CompressionSpec> known = PresetSpec(params.preset());
  if (!known.ok()) return absl::InvalidArgumentError(known.status().message());
  CompressionSpec spec = *std::move(known);
  TP_RETURN_IF_ERROR(StagesFrom(params, spec));
  TP_RETURN_IF_ERROR(BudgetFrom(params, spec));
  if (params.has_sink_tokens()) spec.sink_tokens = params.sink_tokens();
  if (params.has_window_tokens()) spec.window_tokens = params.window_tokens();
  if (params.has_pool_kernel()) spec.pool_kernel = params.pool_kernel();
  if (params.has_recent_share()) spec.recent_share = params.recent_share();
  spec.dense_layers.assign(params.dense_layers().begin(), params.dense_layers().end());
  if (params.has_dense_layers_override()) spec.dense_layers_override = params.dense_layers_override();
  if (params.has_pyramid_beta()) spec.pyramid_beta = params.pyramid_beta();
  if (params.has_ada_floor()) spec.ada_floor = params.ada_floor();
  if (params.has_ada_normalize()) spec.ada_normalize = params.ada_normalize();
  if (params.has_lazy_sinks()) spec.lazy_sinks = params.lazy_sinks();
  if (params.has_lazy_recent()) spec.lazy_recent = params.lazy_recent();
  if (params.has_lazy_last()) spec.lazy_last = params.lazy_last();
  if (params.has_lazy_share()) spec.lazy_share = params.lazy_share();
  if (params.has_lazy_threshold()) spec.lazy_threshold = params.lazy_threshold();
  spec.lazy_layers.assign(params.lazy_layers().begin(), params.lazy_layers().end());
  if (params.has_merge_ema_alpha()) spec.merge_ema_alpha = params.merge_ema_alpha();
  if (params.has_merge_ema_beta()) spec.merge_ema_beta = params.merge_ema_beta();
  if (params.has_aha_recent()) spec.aha_recent = params.aha_recent();
  if (params.has_aha_value_kernel()) spec.aha_value_kernel = params.aha_value_kernel();
  TP_RETURN_IF_ERROR(Choose("kv_precision", kPrecisions, params.kv_precision(), spec.kv_precision));
  if (params.has_residual_tokens()) spec.residual_tokens = params.residual_tokens();
  const v1::RecallParams& recall = params.recall();
  TP_RETURN_IF_ERROR(Choose("recall.mode", kRecallModes, recall.mode(), spec.recall.mode));
  TP_RETURN_IF_ERROR(Choose("recall.index", kRecallIndexes, recall.index(), spec.recall.index));
  TP_RETURN_IF_ERROR(Choose("recall.index_placement", kPlacements, recall.index_placement(), spec.recall.placement));
  TP_RETURN_IF_ERROR(Choose("recall.on_loss", kOnLoss, recall.on_loss(), spec.recall.on_loss));
  TP_RETURN_IF_ERROR(Choose("recall.trigger", kTriggers, recall.trigger(), spec.recall.trigger));
  TP_RETURN_IF_ERROR(Choose("recall.select_scope", kSelectScopes, recall.select_scope(), spec.recall.select_scope));
  spec.recall.filter_layers.assign(recall.filter_layers().begin(), recall.filter_layers().end());
  if (recall.has_shortlist()) {
    if (recall.shortlist() < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("compression.recall.shortlist: ", recall.shortlist(), " is not in 0 to 65536"));
    }
    spec.recall.shortlist = recall.shortlist();
  }
  if (recall.has_share()) spec.recall.share = recall.share();
  if (recall.has_rows()) spec.recall.rows = recall.rows();
  if (recall.has_ema_beta()) spec.recall.ema_beta = recall.ema_beta();
  if (recall.has_ema_margin()) spec.recall.ema_margin = recall.ema_margin();
  if (recall.has_max_rows_per_step()) spec.recall.max_rows_per_step = recall.max_rows_per_step();
  if (recall.has_budget_ms()) spec.recall.budget_ms = recall.budget_ms();
  if (recall.has_staging()) spec.recall.staging = recall.staging();
  if (recall.has_follow_rows()) spec.recall.follow_rows = recall.follow_rows();
  if (recall.has_interval()) spec.recall.interval = recall.interval();
  if (recall.has_turn()) spec.recall.turn = recall.turn();
  if (recall.has_min_share()) spec.recall.min_share = recall.min_share();
  if (recall.has_promote_after()) spec.recall.promote_after = recall.promote_after();
  return spec;
}

}  // namespace tidepool
