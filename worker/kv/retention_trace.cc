#include "worker/kv/retention_trace.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "base/check.h"
#include "worker/kernels/cpu/attention.h"
#include "worker/kv/window_attention.h"

namespace tidepool {
namespace {

constexpr int kLanes = 8;  // head_dim is a multiple of 16

float Dot(const float* a, const float* b, int count) {
  float sums[kLanes] = {};
  for (int c = 0; c < count; c += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) sums[lane] += a[c + lane] * b[c + lane];
  }
  float sum = 0;
  for (float part : sums) sum += part;
  return sum;
}

}  // namespace

RetentionTrace::RetentionTrace(const KvLayout& layout, int query_heads, int query_window)
    : layout_(layout),
      group_(query_heads / layout.kv_heads),
      window_(query_window),
      prompt_queries_(layout.layers, query_window, query_heads * layout.head_dim),
      heads_(static_cast<size_t>(layout.layers) * layout.kv_heads) {}

void RetentionTrace::TakeKeys(Backend& backend, const SequenceRows& rows, int layer, int kv_head,
                              int32_t first_position, int32_t tokens) {
  Head& mine = head(layer, kv_head);
  const int dim = layout_.head_dim;
  TIDEPOOL_CHECK(mine.keys.size() >= static_cast<size_t>(first_position) * dim);  // seen from the first token on
  mine.keys.resize(static_cast<size_t>(first_position + tokens) * dim);
  const absl::Span<const int32_t> newest = rows.head(layer, kv_head).order().last(tokens);
  std::string raw(tokens * layout_.row_bytes(), '\0');
  backend.ReadRows(rows, layer, kv_head, newest, raw.data());
  std::vector<float> row(2 * dim);
  for (int32_t i = 0; i < tokens; ++i) {
    RowToFloat(layout_, raw.data() + i * layout_.row_bytes(), row.data());
    FloatToHalf(row.data(), dim, mine.keys.data() + static_cast<size_t>(first_position + i) * dim);
  }
}

std::vector<float> RetentionTrace::FullAttention(const Head& head, absl::Span<const float* const> queries,
                                                 int32_t visible) const {
  const int dim = layout_.head_dim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
  std::vector<float> scores(queries.size() * visible), key(dim), mean(visible);
  for (int32_t position = 0; position < visible; ++position) {
    HalfToFloat(head.keys.data() + static_cast<size_t>(position) * dim, dim, key.data());
    for (size_t q = 0; q < queries.size(); ++q) {
      scores[q * visible + position] = scale * Dot(queries[q], key.data(), dim);
    }
  }
  for (size_t q = 0; q < queries.size(); ++q) {
    float* const row = scores.data() + q * visible;
    const float maximum = *std::max_element(row, row + visible);
    double sum = 0;
    for (int32_t i = 0; i < visible; ++i) sum += row[i] = std::exp(row[i] - maximum);
    const float weight = static_cast<float>(1.0 / (sum * static_cast<double>(queries.size())));
    for (int32_t i = 0; i < visible; ++i) mean[i] += row[i] * weight;
  }
  return mean;
}

void RetentionTrace::BeforeAttention(Backend& backend, const SequenceRows& rows, int layer, int32_t first_position,
                                     int32_t tokens, bool compressed, const SliceQueries& queries) {
  if (!prompt_seen_) {
    for (int32_t token = std::max(0, tokens - window_); token < tokens; ++token) {
      prompt_queries_.Push(layer, queries.Head(token, 0, layout_.head_dim));
    }
  }
  backend.ParallelFor(layout_.kv_heads, [&](int64_t index) {
    const int kv_head = static_cast<int>(index);
    TakeKeys(backend, rows, layer, kv_head, first_position, tokens);
    Head& mine = head(layer, kv_head);
    const HeadRows& resident = rows.head(layer, kv_head);
    mine.recalled.resize(first_position + tokens);
    if (resident.recalled_rows() > 0) {
      for (int32_t slot : resident.order()) {
        if (resident.kind(slot) != RowKind::kRecalled) continue;
        uint16_t& steps = mine.recalled[resident.position(slot)];
        if (steps < std::numeric_limits<uint16_t>::max()) ++steps;
      }
    }
    if (prompt_seen_) CountLaterQueries(mine, kv_head, resident, first_position, tokens, compressed, queries);
  });
}

void RetentionTrace::CountLaterQueries(Head& mine, int kv_head, const HeadRows& resident, int32_t first_position,
                                       int32_t tokens, bool compressed, const SliceQueries& queries) const {
  std::vector<const float*> group(group_);
  for (int32_t token = std::max(0, tokens - window_); token < tokens; ++token) {
    ++mine.later_queries;
    if (!compressed) {  // all rows are there
      mine.later_kept += 1;
      continue;
    }
    for (int g = 0; g < group_; ++g) group[g] = queries.Head(token, kv_head * group_ + g, layout_.head_dim);
    const std::vector<float> attention = FullAttention(mine, group, first_position + token + 1);
    for (int32_t slot : resident.order()) {
      const int32_t position = resident.position(slot);
      if (position > first_position + token) break;
      double& share = resident.kind(slot) == RowKind::kRecalled ? mine.later_recalled : mine.later_kept;
      share += attention[position];
    }
  }
}

void RetentionTrace::OnMerge(int layer, int kv_head, int32_t position, int32_t into) {
  std::vector<uint8_t>& merged = head(layer, kv_head).merged;
  if (static_cast<int32_t>(merged.size()) <= position) merged.resize(position + 1);
  merged[position] = 1;
}

void RetentionTrace::AfterPrompt(Backend& backend, const SequenceRows& rows, int32_t tokens) {
  Snapshot(rows, tokens);
  if (prompt_seen_) return;
  prompt_seen_ = true;
  first_prompt_ = tokens;
  backend.ParallelFor(static_cast<int64_t>(heads_.size()), [&](int64_t index) {
    Head& mine = heads_[index];
    const int layer = static_cast<int>(index) / layout_.kv_heads, kv_head = static_cast<int>(index) % layout_.kv_heads;
    mine.prompt_attention.assign(tokens, 0.0f);
    const int count = prompt_queries_.tokens(layer);
    std::vector<const float*> group(group_);
    for (int i = 0; i < count; ++i) {
      for (int g = 0; g < group_; ++g) {
        group[g] = prompt_queries_.Token(layer, i) + int64_t{kv_head * group_ + g} * layout_.head_dim;
      }
      const std::vector<float> attention = FullAttention(mine, group, tokens - count + i + 1);
      for (size_t position = 0; position < attention.size(); ++position) {
        mine.prompt_attention[position] += attention[position] / static_cast<float>(count);
      }
    }
    for (int32_t position = 0; position < tokens; ++position) {
      if (mine.kept[position] != 0) mine.prompt_share += mine.prompt_attention[position];
    }
  });
}

void RetentionTrace::AfterStep(const SequenceRows& rows, int32_t tokens) { Snapshot(rows, tokens); }

void RetentionTrace::Snapshot(const SequenceRows& rows, int32_t tokens) {
  tokens_ = tokens;
  for (int layer = 0; layer < layout_.layers; ++layer) {
    for (int kv_head = 0; kv_head < layout_.kv_heads; ++kv_head) {
      Head& mine = head(layer, kv_head);
      const HeadRows& resident = rows.head(layer, kv_head);
      mine.kept.assign(tokens, 0);
      mine.merged.resize(tokens);
      mine.recalled.resize(tokens);
      for (int32_t slot : resident.order()) {
        if (resident.kind(slot) == RowKind::kKept) mine.kept[resident.position(slot)] = 1;
      }
      mine.recall_slots = resident.recalled_rows();
    }
  }
}

RowFate RetentionTrace::fate(int layer, int kv_head, int32_t position) const {
  const Head& mine = head(layer, kv_head);
  if (mine.kept[position] != 0) return RowFate::kKept;
  if (mine.recalled[position] != 0) return RowFate::kRecalled;
  return mine.merged[position] != 0 ? RowFate::kMerged : RowFate::kEvicted;
}

int RetentionTrace::recalled_steps(int layer, int kv_head, int32_t position) const {
  return head(layer, kv_head).recalled[position];
}

float RetentionTrace::prompt_attention(int layer, int kv_head, int32_t position) const {
  const std::vector<float>& attention = head(layer, kv_head).prompt_attention;
  return position < static_cast<int32_t>(attention.size()) ? attention[position] : 0.0f;
}

HeadRetention RetentionTrace::Retention(int layer, int kv_head) const {
  const Head& mine = head(layer, kv_head);
  HeadRetention retention;
  for (int32_t position = 0; position < tokens_; ++position) {
    retention.recall_steps += mine.recalled[position];
    switch (fate(layer, kv_head, position)) {
      case RowFate::kKept: ++retention.kept; break;
      case RowFate::kRecalled: ++retention.recalled; break;
      case RowFate::kMerged: ++retention.merged; break;
      case RowFate::kEvicted: ++retention.evicted; break;
    }
  }
  retention.recall_slots = mine.recall_slots;
  retention.prompt_attention = mine.prompt_share;
  if (mine.later_queries > 0) {
    retention.later_kept = mine.later_kept / static_cast<double>(mine.later_queries);
    retention.later_recalled = mine.later_recalled / static_cast<double>(mine.later_queries);
  }
  return retention;
}

}  // namespace tidepool
