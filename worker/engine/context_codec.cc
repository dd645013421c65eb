#include "worker/engine/context_codec.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/bytes.h"
#include "base/status_macros.h"
#include "policies/kv/block_codec.h"

namespace tidepool {
namespace {

constexpr uint32_t kVersion = 10;

void PutSpec(ByteWriter& out, const CompressionSpec& spec) {
  out.PutBytes(spec.preset);
  out.Put(spec.layer_budget);
  out.Put(spec.head_budget);
  out.PutBytes(spec.score);
  out.Put(spec.schedule);
  out.Put(spec.fate);
  out.Put(spec.budget_fraction);
  out.Put(spec.budget_tokens);
  out.Put(spec.budget_bytes);
  out.Put(spec.decode_budget);
  out.Put(spec.decode_interval);
  out.Put(spec.prefill);
  out.Put(spec.prefill_chunk);
  out.Put(spec.sink_tokens);
  out.Put(spec.window_tokens);
  out.Put(spec.pool_kernel);
  out.Put(spec.pooling);
  out.Put(spec.group_reduce);
  out.Put(spec.recent_share);
  out.Put(spec.merge_ema_alpha);
  out.Put(spec.merge_ema_beta);
  out.PutVector(std::vector<int32_t>(spec.dense_layers.begin(), spec.dense_layers.end()));
  out.Put(spec.dense_layers_override);
  out.Put(spec.pyramid_beta);
  out.Put(spec.ada_floor);
  out.Put(spec.ada_normalize);
  out.Put(spec.lazy_sinks);
  out.Put(spec.lazy_recent);
  out.Put(spec.lazy_last);
  out.Put(spec.lazy_share);
  out.Put(spec.lazy_threshold);
  out.PutVector(std::vector<int32_t>(spec.lazy_layers.begin(), spec.lazy_layers.end()));
  out.Put(spec.aha_recent);
  out.Put(spec.aha_value_kernel);
  out.Put(spec.kv_precision);
  out.Put(spec.residual_tokens);
  out.Put<int32_t>(static_cast<int32_t>(spec.score_options.size()));
  for (const auto& [name, value] : spec.score_options) {
    out.PutBytes(name);
    out.Put(value);
  }
  const RecallSpec& recall = spec.recall;
  out.Put(recall.mode);
  out.Put(recall.index);
  out.Put(recall.shortlist);
  out.Put(recall.placement);
  out.Put(recall.share);
  out.Put(recall.rows);
  out.Put(recall.ema_beta);
  out.Put(recall.ema_margin);
  out.Put(recall.max_rows_per_step);
  out.Put(recall.budget_ms);
  out.Put(recall.staging);
  out.Put(recall.follow_rows);
  out.Put(recall.interval);
  out.Put(recall.turn);
  out.Put(recall.min_share);
  out.Put(recall.promote_after);
  out.Put(recall.on_loss);
  out.Put(recall.trigger);
  out.Put(recall.select_scope);
  out.PutVector(std::vector<int32_t>(recall.filter_layers.begin(), recall.filter_layers.end()));
}

CompressionSpec GetSpec(ByteReader& in) {
  CompressionSpec spec;
  spec.preset = std::string(in.GetBytes());
  spec.layer_budget = in.Get<LayerBudgetRule>();
  spec.head_budget = in.Get<HeadBudgetRule>();
  spec.score = std::string(in.GetBytes());
  spec.schedule = in.Get<Schedule>();
  spec.fate = in.Get<Fate>();
  spec.budget_fraction = in.Get<double>();
  spec.budget_tokens = in.Get<int>();
  spec.budget_bytes = in.Get<int64_t>();
  spec.decode_budget = in.Get<DecodeBudget>();
  spec.decode_interval = in.Get<int>();
  spec.prefill = in.Get<PrefillMode>();
  spec.prefill_chunk = in.Get<int>();
  spec.sink_tokens = in.Get<int>();
  spec.window_tokens = in.Get<int>();
  spec.pool_kernel = in.Get<int>();
  spec.pooling = in.Get<Pooling>();
  spec.group_reduce = in.Get<GroupReduce>();
  spec.recent_share = in.Get<double>();
  spec.merge_ema_alpha = in.Get<double>();
  spec.merge_ema_beta = in.Get<double>();
  const std::vector<int32_t> dense = in.GetVector<int32_t>();
  spec.dense_layers.assign(dense.begin(), dense.end());
  spec.dense_layers_override = in.Get<bool>();
  spec.pyramid_beta = in.Get<int>();
  spec.ada_floor = in.Get<double>();
  spec.ada_normalize = in.Get<bool>();
  spec.lazy_sinks = in.Get<int>();
  spec.lazy_recent = in.Get<int>();
  spec.lazy_last = in.Get<int>();
  spec.lazy_share = in.Get<double>();
  spec.lazy_threshold = in.Get<double>();
  const std::vector<int32_t> lazy = in.GetVector<int32_t>();
  spec.lazy_layers.assign(lazy.begin(), lazy.end());
  spec.aha_recent = in.Get<int>();
  spec.aha_value_kernel = in.Get<int>();
  spec.kv_precision = in.Get<KvPrecision>();
  spec.residual_tokens = in.Get<int>();
  for (int32_t options = in.Get<int32_t>(); in.ok() && options > 0; --options) {
    const std::string name(in.GetBytes());
    spec.score_options[name] = in.Get<double>();
  }
  RecallSpec& recall = spec.recall;
  recall.mode = in.Get<RecallMode>();
  recall.index = in.Get<RecallIndex>();
  recall.shortlist = in.Get<int>();
  recall.placement = in.Get<IndexPlacement>();
  recall.share = in.Get<double>();
  recall.rows = in.Get<int>();
  recall.ema_beta = in.Get<double>();
  recall.ema_margin = in.Get<double>();
  recall.max_rows_per_step = in.Get<int>();
  recall.budget_ms = in.Get<int>();
  recall.staging = in.Get<double>();
  recall.follow_rows = in.Get<int>();
  recall.interval = in.Get<int>();
  recall.turn = in.Get<double>();
  recall.min_share = in.Get<double>();
  recall.promote_after = in.Get<int>();
  recall.on_loss = in.Get<OnRecallLoss>();
  recall.trigger = in.Get<RecallTrigger>();
  recall.select_scope = in.Get<SelectScope>();
  const std::vector<int32_t> filters = in.GetVector<int32_t>();
  recall.filter_layers.assign(filters.begin(), filters.end());
  return spec;
}

absl::Status Damaged(const SessionManifest& manifest, absl::string_view what) {
  return absl::DataLossError(absl::StrCat("session '", manifest.session_id, "': its engine state is damaged: ", what));
}

enum RowFlag : uint8_t { kMergedRow = 1, kPackedRow = 2 };

void SaveHead(const Context& context, Backend& backend, int layer, int kv_head, ByteWriter& out) {
  const HeadRows& head = context.rows().head(layer, kv_head);
  out.Put<int32_t>(static_cast<int32_t>(head.groups().size()));
  for (const RowGroup& group : head.groups()) {
    out.PutVector(group.founders);
    // A founder that has left may be resident all the same: merged into and restored by recall, it can be a plain row
    // or have been packed once more, in another group.
    uint32_t resident = 0;
    for (int i = 0; i < kGroupTokens; ++i) {
      if (head.kind(group.first_slot + i) != RowKind::kFree) resident |= uint32_t{1} << i;
    }
    out.Put(resident);
  }
  out.Put<int32_t>(head.rows());
  std::string row(backend.layout().row_bytes(), '\0');
  for (int32_t slot : head.order()) {
    const bool merged = head.merged()[slot] != 0;
    out.Put<int32_t>(head.position(slot));
    out.Put(head.kind(slot));
    out.Put<uint8_t>((merged ? kMergedRow : 0) | (head.is_packed(slot) ? kPackedRow : 0));
    for (const std::vector<float>& sums : head.column_sums()) out.Put(sums[slot]);
    if (context.compressor().keeps_step_sums(layer)) out.Put(head.step_sums()[slot]);
    if (merged) {
      backend.ReadRows(context.rows(), layer, kv_head, {slot}, row.data());
      out.PutBytes(row);
    }
  }
}

struct SavedGroup {
  std::vector<int32_t> founders;  // positions below `computed`, or -1
  std::vector<int32_t> resident;  // those of them whose row is in the group, ascending
};

// False when the bytes are none.
bool GetGroups(ByteReader& in, const CompressionSpec& spec, int32_t computed, std::vector<SavedGroup>* groups) {
  const int32_t count = in.Get<int32_t>();
  if (!in.ok() || count < 0 || count > computed || (count > 0 && spec.kv_precision == KvPrecision::kF16)) return false;
  for (int32_t i = 0; i < count; ++i) {
    SavedGroup& group = groups->emplace_back(SavedGroup{.founders = in.GetVector<int32_t>()});
    const uint32_t resident = in.Get<uint32_t>();
    if (!in.ok() || group.founders.size() != kGroupTokens) return false;
    for (int f = 0; f < kGroupTokens; ++f) {
      if (group.founders[f] < -1 || group.founders[f] >= computed) return false;
      if ((resident >> f & 1) != 0) group.resident.push_back(group.founders[f]);
    }
    std::sort(group.resident.begin(), group.resident.end());
  }
  return true;
}

// What is wrong with the state; null when nothing is. Rows of packed groups have their places, FillGroups their bytes.
const char* RestoreHead(Context& context, Backend& backend, int layer, int kv_head, ByteReader& in) {
  HeadRows& head = context.rows().head(layer, kv_head);
  PagePool& pool = context.rows().pool();
  const int32_t computed = context.computed();
  std::vector<SavedGroup> groups;
  if (!GetGroups(in, context.spec(), computed, &groups)) return "row groups";
  const int32_t count = in.Get<int32_t>();
  if (!in.ok() || count < 0 || count > computed) return "row count";
  std::vector<int32_t> packed;                  // positions
  std::vector<std::vector<float>> packed_sums;  // one for each query head, and that of the steps
  const bool step_sums = context.compressor().keeps_step_sums(layer);
  auto set_sums = [&](int32_t slot, const std::vector<float>& sums) {
    for (size_t g = 0; g < head.column_sums().size(); ++g) head.column_sums()[g][slot] = sums[g];
    if (step_sums) head.step_sums()[slot] = sums.back();
  };
  int32_t last = -1;
  for (int32_t i = 0; i < count; ++i) {
    const int32_t position = in.Get<int32_t>();
    const RowKind kind = in.Get<RowKind>();
    const uint8_t flags = in.Get<uint8_t>();
    std::vector<float> sums(head.column_sums().size() + (step_sums ? 1 : 0));
    for (float& sum : sums) sum = in.Get<float>();
    if (!in.ok() || position <= last || position >= computed ||
        (kind != RowKind::kKept && kind != RowKind::kRecalled) || flags > kPackedRow) {
      return "row position";
    }
    last = position;
    if (flags == kPackedRow) {
      if (kind != RowKind::kKept) return "packed row";
      packed.push_back(position);
      packed_sums.push_back(std::move(sums));
      continue;
    }
    const int32_t slot = head.Add(pool, position, kind);
    set_sums(slot, sums);
    if (flags != kMergedRow) continue;
    head.merged()[slot] = 1;
    const std::string_view row = in.GetBytes();
    if (row.size() != backend.layout().row_bytes()) return "merged row";
    backend.WriteRow(context.rows(), layer, kv_head, slot, row.data());
  }
  std::vector<int32_t> placed;
  for (const SavedGroup& group : groups) placed.insert(placed.end(), group.resident.begin(), group.resident.end());
  std::sort(placed.begin(), placed.end());
  if (placed != packed) return "packed rows";  // each in one group, none of another kind
  for (SavedGroup& group : groups) {
    head.RestoreGroup(pool, context.spec().kv_precision, std::move(group.founders), group.resident);
  }
  for (size_t i = 0; i < packed.size(); ++i) {
    const int32_t slot = head.Find(packed[i]);
    if (slot < 0) return "packed rows";
    set_sums(slot, packed_sums[i]);
  }
  return nullptr;
}

// Packs the groups of a layer again from the exact rows: values [block][layer].
void FillGroups(Backend& backend, const SequenceRows& rows, int layer, absl::Span<const std::string> values) {
  const KvLayout& layout = backend.layout();
  std::string raw(kGroupTokens * layout.row_bytes(), '\0');
  for (int kv_head = 0; kv_head < layout.kv_heads; ++kv_head) {
    for (const RowGroup& group : rows.head(layer, kv_head).groups()) {
      for (int i = 0; i < kGroupTokens; ++i) {
        const int32_t position = group.founders[i];
        char* row = raw.data() + i * layout.row_bytes();
        if (position < 0) {
          std::memset(row, 0, layout.row_bytes());
          continue;
        }
        const BlockView view = *BlockView::Parse(values[position / kBlockTokens * layout.layers + layer]);
        std::memcpy(row, view.Row(kv_head, position % kBlockTokens).data(), layout.row_bytes());
      }
      backend.FillGroup(group, raw.data());
    }
  }
}

}  // namespace

SessionManifest ContextCodec::Save(Context& context) {
  SessionManifest manifest;
  manifest.session_id = context.options().session_id;
  manifest.token_ids = context.token_ids();
  manifest.block_keys = context.log().keys();
  if (context.log().tail_tokens() > 0) manifest.block_keys.push_back(context.log().TailKey());
  manifest.preset = context.spec().preset;

  ByteWriter out;
  out.Put(kVersion);
  PutSpec(out, context.spec());
  out.Put<int32_t>(context.rows().longest_head());
  out.PutBytes(context.options().nonce);
  out.Put<int32_t>(context.computed());
  out.Put<bool>(context.log().exact());
  Backend& backend = *context.backend_;
  const KvLayout& layout = backend.layout();
  for (int layer = 0; layer < layout.layers; ++layer) {
    for (int kv_head = 0; kv_head < layout.kv_heads; ++kv_head) {
      SaveHead(context, backend, layer, kv_head, out);
    }
  }
  context.compressor().Save(out);
  if (const QueryRing* ring = context.ring(); ring != nullptr) ring->Save(out);
  if (const RowRecall* recall = context.recall(); recall != nullptr) recall->Save(out);
  manifest.engine_state = std::move(out).Take();
  return manifest;
}

absl::StatusOr<ContextCodec::Outline> ContextCodec::OutlineOf(const SessionManifest& manifest) {
  ByteReader in(manifest.engine_state);
  if (in.Get<uint32_t>() != kVersion) return Damaged(manifest, "unknown version");
  Outline outline;
  outline.spec = GetSpec(in);
  outline.longest_head = in.Get<int32_t>();
  if (!in.ok() || outline.longest_head < 0) return Damaged(manifest, "it ends early");
  if (absl::Status status = ValidateCompression(outline.spec); !status.ok()) return Damaged(manifest, status.message());
  return outline;
}

absl::StatusOr<std::unique_ptr<Context>> ContextCodec::Restore(const SessionManifest& manifest,
                                                               absl::Span<const std::string> values,
                                                               ContextOptions options, Backend* backend,
                                                               BlockCache* cache) {
  ByteReader in(manifest.engine_state);
  in.Get<uint32_t>();
  options.spec = GetSpec(in);
  in.Get<int32_t>();  // the longest head
  options.nonce = std::string(in.GetBytes());
  const int32_t computed = in.Get<int32_t>();
  const bool exact = in.Get<bool>();
  const KvLayout& layout = backend->layout();
  const int32_t blocks = static_cast<int32_t>(manifest.block_keys.size());
  if (!in.ok() || computed < 0 || computed > static_cast<int32_t>(manifest.token_ids.size()) ||
      (computed + kBlockTokens - 1) / kBlockTokens != blocks ||
      values.size() != manifest.block_keys.size() * layout.layers) {
    return Damaged(manifest, "token and block counts differ");
  }
  for (int32_t block = 0; block < blocks; ++block) {
    const int tokens = std::min(kBlockTokens, computed - block * kBlockTokens);
    for (int layer = 0; layer < layout.layers; ++layer) {
      TP_ASSIGN_OR_RETURN(const BlockView view, BlockView::Parse(values[block * layout.layers + layer]));
      if (view.tokens() != tokens) {  // the rest is checked where values are fetched
        return Damaged(manifest, absl::StrCat("block ", block, " is another one"));
      }
    }
  }

  auto context = std::make_unique<Context>(backend, cache, std::move(options));
  context->revision = manifest.revision;
  context->token_ids_ = manifest.token_ids;
  context->computed_ = computed;
  for (int layer = 0; layer < layout.layers; ++layer) {
    for (int kv_head = 0; kv_head < layout.kv_heads; ++kv_head) {
      if (const char* wrong = RestoreHead(*context, *backend, layer, kv_head, in); wrong != nullptr) {
        return Damaged(manifest, wrong);
      }
    }
  }
  const bool rest = context->compressor_.Load(in) && (!context->ring_.has_value() || context->ring_->Load(in)) &&
                    (!context->recall_.has_value() || context->recall_->Load(in));
  if (!rest || !in.done()) return Damaged(manifest, "policy state");

  const bool has_tail = computed % kBlockTokens != 0;
  const absl::Span<const BlockKey> keys = absl::MakeConstSpan(manifest.block_keys);
  context->log_.AdoptStored(has_tail ? keys.subspan(0, keys.size() - 1) : keys, exact);
  backend->ParallelFor(layout.layers, [&](int64_t layer) {
    for (int32_t block = 0; block < blocks; ++block) {
      context->InstallBlock(values[block * layout.layers + layer], static_cast<int>(layer), block);
    }
    FillGroups(*backend, context->rows_, static_cast<int>(layer), values);
  });
  if (has_tail) {
    const int tail = computed % kBlockTokens;
    context->log_.Append(absl::MakeConstSpan(manifest.token_ids).subspan(computed - tail, tail), exact,
                         [&](int layer, int kv_head, char* out) {
                           const BlockView view = *BlockView::Parse(values[(blocks - 1) * layout.layers + layer]);
                           std::memcpy(out, view.Row(kv_head, 0).data(), tail * layout.row_bytes());
                         });
  }
  return context;
}

}  // namespace tidepool
