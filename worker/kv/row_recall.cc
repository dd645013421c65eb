#include "worker/kv/row_recall.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/check.h"
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

float Dot(const float* a, const float* b, int size) {
  float sum = 0;
  for (int i = 0; i < size; ++i) sum += a[i] * b[i];
  return sum;
}

// In four lanes, which is as good as any order but fast.
float Sum(absl::Span<const float> x) {
  double lanes[4] = {};
  size_t i = 0;
  for (; i + 4 <= x.size(); i += 4) {
    for (size_t lane = 0; lane < 4; ++lane) lanes[lane] += x[i + lane];
  }
  for (; i < x.size(); ++i) lanes[0] += x[i];
  return static_cast<float>(lanes[0] + lanes[1] + lanes[2] + lanes[3]);
}

}  // namespace

RowRecall::RowRecall(const KvLayout& layout, int group, const RecallSpec& spec)
    : layout_(layout),
      group_(group),
      spec_(spec),
      index_(MakeKeyIndex(spec.index, layout, group)),
      heads_(static_cast<size_t>(layout.layers) * layout.kv_heads),
      staging_(layout.layers * layout.kv_heads, layout.row_bytes()) {}

void RowRecall::set_slots(int32_t rows) {
  slots_ = rows;
  const int shortlist = ShortlistRows(spec_);
  int32_t staged = shortlist > 0 ? rows + shortlist : 0;
  if (spec_.mode == RecallMode::kAsync)
    staged = std::max(staged, static_cast<int32_t>(std::ceil(spec_.staging * rows)));
  staging_.Grow(staged);
}

void RowRecall::AddBlock(int32_t block, int layer, int kv_head, const char* rows, bool prompt) {
  std::vector<float> keys(static_cast<size_t>(kBlockTokens) * layout_.head_dim);
  for (int token = 0; token < kBlockTokens; ++token) {
    KeyToFloat(layout_, rows + token * layout_.row_bytes(), keys.data() + token * layout_.head_dim);
  }
  index_->AddBlock(layer * layout_.kv_heads + kv_head, keys, prompt);
}

void RowRecall::Learn(Backend& backend, const QueryRing& ring) {
  const int head_dim = layout_.head_dim;
  backend.ParallelFor(static_cast<int64_t>(heads_.size()), [&](int64_t index) {
    const int layer = static_cast<int>(index) / layout_.kv_heads, kv_head = static_cast<int>(index) % layout_.kv_heads;
    const int tokens = ring.tokens(layer), count = std::min(tokens, learning_queries());
    std::vector<float> weight(head_dim, 0.0f);
    for (int i = tokens - count; i < tokens; ++i) {
      const float* query = ring.Token(layer, i) + static_cast<size_t>(kv_head) * group_ * head_dim;
      for (int g = 0; g < group_; ++g) {
        for (int c = 0; c < head_dim; ++c) weight[c] += query[g * head_dim + c] * query[g * head_dim + c];
      }
    }
    for (float& w : weight) w = std::sqrt(w / static_cast<float>(std::max(1, count * group_)));
    index_->Learn(static_cast<int>(index), weight);
  });
}

void RowRecall::Rest() {
  inflight.clear();
  asked.clear();
  staging_.Clear();
}

void RowRecall::Score(const SequenceRows& rows, const BlockLog& log, int layer, int kv_head,
                      absl::Span<const float* const> queries, int32_t positions, bool waits, RowScores& scores) const {
  const HeadRows& resident_rows = rows.head(layer, kv_head);
  const int head_dim = layout_.head_dim;
  const int32_t blocks = log.full_blocks();
  positions = std::min(positions, log.tokens());

  // Candidates: what the policy does not keep, or keeps only as a mixture with others, and is to be had.
  scores.positions.clear();
  scores.resident.clear();
  scores.shortlist.clear();
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
      scores.positions.push_back(position);
      // The slot of a kept mixture is its own: to want it means to put its own row back in place.
      scores.resident.push_back(is_resident && !mixture);
    }
  }
  if (scores.positions.empty()) return;

  const size_t stride = static_cast<size_t>(blocks + 1) * kBlockTokens;
  scores.estimate.resize(group_ * stride);
  std::vector<float*> of_query(group_);
  for (int g = 0; g < group_; ++g) of_query[g] = scores.estimate.data() + g * stride;
  index_->Score(layer * layout_.kv_heads + kv_head, queries, blocks, of_query.data());
  // The block being filled is not indexed yet: its exact keys are here.
  std::vector<float> key(head_dim);
  for (int32_t position = blocks * kBlockTokens; position < positions; ++position) {
    KeyToFloat(layout_, log.TailRows(layer, kv_head) + (position - blocks * kBlockTokens) * layout_.row_bytes(),
               key.data());
    for (int g = 0; g < group_; ++g) of_query[g][position] = Dot(queries[g], key.data(), head_dim);
  }

  const size_t count = scores.positions.size();
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  scores.share.resize(group_ * count);
  scores.sum.resize(group_);
  for (int g = 0; g < group_; ++g) {
    float* share = scores.share.data() + g * count;
    for (size_t i = 0; i < count; ++i) share[i] = of_query[g][scores.positions[i]] * scale;
    scores.sum[g] = ExpAndSum(share, static_cast<int32_t>(count));
  }
  Shorten(waits, scores);
}

void RowRecall::Shorten(bool waits, RowScores& scores) const {
  const int extra = ShortlistRows(spec_);
  // Compared by the keys that happen to be there, the others' estimates win where they are too high.
  if (extra == 0 || (!waits && spec_.shortlist < 0)) return;
  scores.shortlist = BestRows(Weights(scores), slots_ + extra);
  std::sort(scores.shortlist.begin(), scores.shortlist.end());
}

std::vector<float> RowRecall::Weights(const RowScores& scores) const {
  const size_t count = scores.positions.size();
  std::vector<float> weight(count, 0.0f);
  for (int g = 0; g < group_; ++g) {
    const float* share = scores.share.data() + g * count;
    const float sum = scores.sum[g];
    for (size_t i = 0; i < count; ++i) weight[i] += share[i] / sum;
  }
  for (float& w : weight) w /= static_cast<float>(group_);
  return weight;
}

void RowRecall::Compare(absl::Span<const float* const> queries, int32_t candidate, const char* row,
                        RowScores& scores) const {
  const int head_dim = layout_.head_dim;
  const size_t count = scores.positions.size(), stride = scores.estimate.size() / group_;
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  std::vector<float> key(head_dim);
  KeyToFloat(layout_, row, key.data());
  for (int g = 0; g < group_; ++g) {
    const float estimate = scores.estimate[g * stride + scores.positions[candidate]];
    scores.share[g * count + candidate] *= std::exp((Dot(queries[g], key.data(), head_dim) - estimate) * scale);
  }
}

RowChoice RowRecall::Choose(int layer, int kv_head, RowScores& scores, bool exact) {
  RowChoice choice;
  if (scores.positions.empty()) return choice;
  HeadState& state = head(layer, kv_head);
  const std::vector<int32_t>& candidates = scores.positions;
  const std::vector<uint8_t>& resident = scores.resident;
  const size_t count = candidates.size();
  if (!scores.shortlist.empty()) {  // anew: estimates that were far too high would leave nothing of a corrected sum
    for (int g = 0; g < group_; ++g) scores.sum[g] = Sum(absl::MakeConstSpan(scores.share).subspan(g * count, count));
  }
  const std::vector<float> weight = Weights(scores);

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
    auto ahead = [&](int32_t i) {
      if (!resident[i] && !staging_.Has(index, candidates[i])) choice.ahead.push_back(candidates[i]);
    };
    for (int32_t i : RowsAhead(chosen.best, candidates, resident, spec_.follow_rows, slots_)) ahead(i);
    for (int32_t i : scores.shortlist) ahead(i);
  }
  return choice;
}

void RowRecall::Save(ByteWriter& out) const {
  out.Put<int32_t>(slots_);
  index_->Save(out);
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
  if (!index_->Load(in)) return false;
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
