#include "worker/kv/row_recall.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "policies/recall/k4_code.h"
#include "policies/recall/select_rows.h"
#include "worker/kernels/cpu/attention.h"

namespace tidepool {
namespace {

// The K part of a row in float32.
void KeyToFloat(const KvLayout& layout, const char* row, float* key) {
  if (layout.type == KvType::kF16) {
    HalfToFloat(reinterpret_cast<const uint16_t*>(row), layout.head_dim, key);
  } else {
    std::memcpy(key, row, layout.head_dim * sizeof(float));
  }
}

}  // namespace

RowRecall::RowRecall(const KvLayout& layout, int group, const RecallSpec& spec)
    : layout_(layout),
      group_(group),
      spec_(spec),
      heads_(static_cast<size_t>(layout.layers) * layout.kv_heads),
      staging_(layout.layers * layout.kv_heads, layout.row_bytes()) {
  TIDEPOOL_CHECK(group >= 1 && group <= kMaxK4Queries);
}

void RowRecall::set_slots(int32_t rows) {
  slots_ = rows;
  if (spec_.mode != RecallMode::kAsync) return;
  staging_.Grow(static_cast<int32_t>(std::ceil(spec_.staging * rows)));
}

void RowRecall::AddBlock(int32_t block, int layer, int kv_head, const char* rows) {
  HeadState& state = head(layer, kv_head);
  const int head_dim = layout_.head_dim;
  const size_t code_bytes = K4CodeBytes(kBlockTokens, head_dim);
  TIDEPOOL_CHECK(state.codes.size() == code_bytes * block);
  std::vector<float> keys(static_cast<size_t>(kBlockTokens) * head_dim);
  for (int token = 0; token < kBlockTokens; ++token) {
    KeyToFloat(layout_, rows + token * layout_.row_bytes(), keys.data() + token * head_dim);
  }
  state.codes.resize(state.codes.size() + code_bytes);
  state.ranges.resize(state.ranges.size() + 2 * head_dim);
  float* ranges = state.ranges.data() + state.ranges.size() - 2 * head_dim;
  EncodeK4(keys.data(), kBlockTokens, head_dim, state.codes.data() + code_bytes * block, ranges, ranges + head_dim);
}

void RowRecall::Rest() {
  inflight.clear();
  asked.clear();
  staging_.Clear();
}

int64_t RowRecall::index_bytes() const {
  int64_t bytes = 0;
  for (const HeadState& state : heads_) {
    bytes += static_cast<int64_t>(state.codes.size() + state.ranges.size() * sizeof(float));
  }
  return bytes;
}

void RowRecall::ScoreBlocks(const HeadState& state, absl::Span<const float* const> queries, int32_t blocks,
                            float* const* scores) const {
  const int head_dim = layout_.head_dim;
  std::vector<float> scaled(static_cast<size_t>(group_) * head_dim);
  std::vector<float> bias(group_);
  std::vector<const float*> scaled_rows(group_);
  std::vector<float*> out(group_);
  for (int32_t block = 0; block < blocks; ++block) {
    const float* minimum = state.ranges.data() + static_cast<size_t>(block) * 2 * head_dim;
    const float* scale = minimum + head_dim;
    for (int g = 0; g < group_; ++g) {
      float sum = 0;
      for (int c = 0; c < head_dim; ++c) {
        sum += queries[g][c] * minimum[c];
        scaled[g * head_dim + c] = queries[g][c] * scale[c];
      }
      bias[g] = sum;
      scaled_rows[g] = scaled.data() + g * head_dim;
      out[g] = scores[g] + block * kBlockTokens;
    }
    K4Task task;
    task.codes = state.codes.data() + K4CodeBytes(kBlockTokens, head_dim) * block;
    task.tiles = K4Tiles(kBlockTokens);
    task.head_dim = head_dim;
    task.queries = group_;
    task.scaled_query = scaled_rows.data();
    task.bias = bias.data();
    task.scores = out.data();
    ScoreK4Tiles(task);
  }
}

RowChoice RowRecall::Choose(const SequenceRows& rows, const BlockLog& log, int layer, int kv_head,
                            absl::Span<const float* const> queries, int32_t positions, bool exact) {
  HeadState& state = head(layer, kv_head);
  const HeadRows& resident_rows = rows.head(layer, kv_head);
  const int head_dim = layout_.head_dim;
  const int32_t blocks = log.full_blocks();
  positions = std::min(positions, log.tokens());

  // Candidates: what the policy does not keep, or keeps only as a mixture with others, and is to be had.
  std::vector<int32_t> candidates;
  std::vector<uint8_t> resident;
  const absl::Span<const int32_t> order = resident_rows.order();
  size_t next = 0;
  for (int32_t position = 0; position < positions;) {
    const int32_t block_end = std::min(positions, (position / kBlockTokens + 1) * kBlockTokens);
    const bool lost = log.IsLost(position / kBlockTokens, layer);
    for (; position < block_end; ++position) {
      while (next < order.size() && resident_rows.position(order[next]) < position) ++next;
      const bool is_resident = next < order.size() && resident_rows.position(order[next]) == position;
      const bool mixture = is_resident && resident_rows.merged()[order[next]] != 0;
      if (is_resident && !mixture && resident_rows.kind(order[next]) == RowKind::kKept) continue;
      if (lost && (mixture || !is_resident)) continue;
      candidates.push_back(position);
      // The slot of a kept mixture is its own: to want it means to put its own row back in place.
      resident.push_back(is_resident && !mixture);
    }
  }
  RowChoice choice;
  if (candidates.empty()) return choice;

  std::vector<float*> score_rows(group_);
  std::vector<float> block_scores(static_cast<size_t>(group_) * blocks * kBlockTokens);
  for (int g = 0; g < group_; ++g) score_rows[g] = block_scores.data() + static_cast<size_t>(g) * blocks * kBlockTokens;
  ScoreBlocks(state, queries, blocks, score_rows.data());
  std::vector<float> key(head_dim);

  const size_t count = candidates.size();
  std::vector<float> weight(count, 0.0f), share(static_cast<size_t>(group_) * count);
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  for (size_t i = 0; i < count; ++i) {
    const int32_t position = candidates[i];
    if (position < blocks * kBlockTokens) {
      for (int g = 0; g < group_; ++g) share[g * count + i] = score_rows[g][position] * scale;
    } else {  // the block being filled is not indexed yet: its exact keys are here
      KeyToFloat(layout_, log.TailRows(layer, kv_head) + (position - blocks * kBlockTokens) * layout_.row_bytes(),
                 key.data());
      for (int g = 0; g < group_; ++g) {
        float dot = 0;
        for (int c = 0; c < head_dim; ++c) dot += queries[g][c] * key[c];
        share[g * count + i] = dot * scale;
      }
    }
  }
  for (int g = 0; g < group_; ++g) {
    const float sum = ExpAndSum(share.data() + g * count, static_cast<int32_t>(count));
    for (size_t i = 0; i < count; ++i) weight[i] += share[g * count + i] / sum;
  }
  for (float& w : weight) w /= static_cast<float>(group_);

  // Averages of the rows that hold a recall slot; a new one starts with its weight.
  std::vector<float> average(count, 0.0f);
  absl::flat_hash_map<int32_t, float> averages;
  const float beta = static_cast<float>(spec_.ema_beta);
  for (size_t i = 0; i < count; ++i) {
    if (!resident[i]) continue;
    const auto at = state.average.find(candidates[i]);
    average[i] = at == state.average.end() ? weight[i] : beta * at->second + (1 - beta) * weight[i];
    averages[candidates[i]] = average[i];
  }
  state.average = std::move(averages);

  const RecallCandidates input{weight, resident, average};
  const float kth = KthLargest(weight, slots_);
  RecallChoice chosen;
  if (exact) {
    chosen = ChooseBest(input, slots_);
  } else {
    const int most = spec_.max_rows_per_step > 0 ? spec_.max_rows_per_step : std::max(1, slots_ / 2);
    // The first step has no threshold yet: everything that would be among the best is wanted.
    const float threshold =
        state.threshold.started ? static_cast<float>(spec_.ema_margin) * state.threshold.theta : 0.0f;
    chosen = ChooseAbove(input, threshold, slots_, most);
  }
  state.threshold.Update(kth, beta);
  for (int32_t i : chosen.wanted) choice.wanted.push_back(candidates[i]);
  for (int32_t i : chosen.victims) choice.victims.push_back(candidates[i]);
  if (spec_.mode == RecallMode::kAsync) {
    const int index = layer * layout_.kv_heads + kv_head;
    for (int32_t i : RowsAhead(chosen.best, candidates, resident, spec_.follow_rows, slots_)) {
      if (!staging_.Has(index, candidates[i])) choice.ahead.push_back(candidates[i]);
    }
  }
  return choice;
}

void RowRecall::Save(ByteWriter& out) const {
  out.Put<int32_t>(slots_);
  for (const HeadState& state : heads_) {
    out.Put<bool>(state.threshold.started);
    out.Put<float>(state.threshold.theta);
    std::vector<std::pair<int32_t, float>> averages(state.average.begin(), state.average.end());
    std::sort(averages.begin(), averages.end());
    out.Put<int32_t>(static_cast<int32_t>(averages.size()));
    for (const auto& [position, average] : averages) {
      out.Put<int32_t>(position);
      out.Put<float>(average);
    }
  }
}

bool RowRecall::Load(ByteReader& in) {
  const int32_t slots = in.Get<int32_t>();
  if (slots < 0) return false;
  set_slots(slots);
  for (HeadState& state : heads_) {
    state.threshold.started = in.Get<bool>();
    state.threshold.theta = in.Get<float>();
    const int32_t count = in.Get<int32_t>();
    for (int32_t i = 0; i < count && in.ok(); ++i) {
      const int32_t position = in.Get<int32_t>();
      state.average[position] = in.Get<float>();
    }
  }
  return in.ok();
}

}  // namespace tidepool
