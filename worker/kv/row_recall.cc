#include "worker/kv/row_recall.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "absl/container/fixed_array.h"
#include "base/check.h"
#include "policies/recall/cosine_probe.h"
#include "worker/kernels/cpu/attention.h"
#include "worker/kernels/cpu/recall_scan.h"

namespace tidepool {
namespace {

// async: rows with this much of a head's attention are followed, as reading on follows them.
constexpr float kFollowedShare = 0.005f;

// async: rows that a head has fetched ahead when it chooses. More at once delay what a step waits for; with fewer, rows
// that the index ranks too low never come to be compared (decision 0008).
constexpr size_t kMostAhead = 16;

// async: rows with this part of the threshold are runners-up, to be staged.
constexpr float kNear = 0.6f;

// async: rows with this part of what a row must weigh to be wanted, by the index, are compared by their own keys.
constexpr float kReach = 0.1f;

// async: recall slots for this share of the context, or a smaller one, are few; twice as many are enough. A head that
// holds more of its rows needs less of the rest (decision 0008).
constexpr float kFewSlots = 0.05f;

// async: a choice that could bring less of a head's attention, by the index, is not made; with enough slots, less than
// twice as much. Three of four could bring less, and what they leave adds up until it is more (decision 0008). When an
// answer begins it has had no time to.
constexpr float kLeastWorth = 0.01f;

// async: with enough slots a head has turned when its scores have moved apart by so many times RecallSpec::turn.
constexpr float kTurnOfEnough = 1.5f;

// From 0, where slots are few, to 1, where they are enough.
float EnoughSlots(int32_t slots, int64_t positions) {
  const float share = static_cast<float>(slots) / static_cast<float>(std::max<int64_t>(positions, 1));
  return std::clamp(share / kFewSlots - 1.0f, 0.0f, 1.0f);
}

// Rows that a device finds: so many times those that are compared or have slots. Rows that fall behind when they are
// compared leave their places to the next.
constexpr int kFoundOf = 2;

// The K part of a row in float32.
void KeyToFloat(const KvLayout& layout, const char* row, float* key) {
  if (layout.type == KvType::kF16) {
    HalfToFloat(reinterpret_cast<const uint16_t*>(row), layout.head_dim, key);
  } else {
    std::memcpy(key, row, layout.head_dim * sizeof(float));
  }
}

// In eight lanes, which the compiler keeps in registers. size: a multiple of 8.
float Dot(const float* a, const float* b, int size) {
  float lanes[8] = {};
  for (int i = 0; i < size; i += 8) {
    for (int lane = 0; lane < 8; ++lane) lanes[lane] += a[i + lane] * b[i + lane];
  }
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

float Length(const float* x, int size) { return std::sqrt(Dot(x, x, size)); }

// Sum of weight * (a - b)^2, likewise.
float WeightedDistance(const float* a, const float* b, const float* weight, int size) {
  float lanes[8] = {};
  for (int i = 0; i < size; i += 8) {
    for (int lane = 0; lane < 8; ++lane) {
      const float difference = a[i + lane] - b[i + lane];
      lanes[lane] += weight[i + lane] * difference * difference;
    }
  }
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

}  // namespace

RowRecall::RowRecall(const KvLayout& layout, int group, const RecallSpec& spec, std::shared_ptr<ChunkMemory> staging)
    : layout_(layout),
      group_(group),
      spec_(spec),
      index_(MakeKeyIndex(spec.index, layout, group)),
      choosers_(ChoosersOf(spec, layout.layers)),
      heads_(static_cast<size_t>(layout.layers) * layout.kv_heads),
      staging_(layout.layers * layout.kv_heads, layout.row_bytes(), std::move(staging)) {}

int32_t RowRecall::StagedRows(const RecallSpec& spec, int32_t slots) {
  const int shortlist = ShortlistRows(spec);
  const int32_t staged = shortlist > 0 ? slots + shortlist : 0;
  if (spec.mode != RecallMode::kAsync) return staged;
  return std::max(staged, static_cast<int32_t>(std::ceil(spec.staging * slots)));
}

void RowRecall::set_slots(int32_t rows) {
  slots_ = rows;
  staging_.Grow(StagedRows(spec_, rows));
}

void RowRecall::AddBlock(int32_t block, int layer, int kv_head, const char* rows, bool prompt) {
  std::vector<float> keys(static_cast<size_t>(kBlockTokens) * layout_.head_dim);
  for (int token = 0; token < kBlockTokens; ++token) {
    KeyToFloat(layout_, rows + token * layout_.row_bytes(), keys.data() + token * layout_.head_dim);
  }
  index_->AddBlock(layer * layout_.kv_heads + kv_head, keys, prompt);
  HeadState& state = head(layer, kv_head);
  if (spec_.mode == RecallMode::kAsync) MeasureKeys(state, keys);
  if (spec_.trigger != RecallTrigger::kCosine) return;
  for (int token = 0; token < kBlockTokens; ++token) {
    state.key_lengths.push_back(Length(keys.data() + token * layout_.head_dim, layout_.head_dim));
  }
}

int64_t RowRecall::index_bytes() const {
  int64_t bytes = index_->bytes();
  for (const HeadState& state : heads_) bytes += static_cast<int64_t>(state.key_lengths.size() * sizeof(float));
  return bytes;
}

void RowRecall::MeasureKeys(HeadState& state, absl::Span<const float> keys) const {
  const int head_dim = layout_.head_dim;
  if (state.key_sum.empty()) state.key_sum.assign(2 * head_dim, 0.0);
  for (int token = 0; token < kBlockTokens; ++token) {
    for (int c = 0; c < head_dim; ++c) {
      const double k = keys[static_cast<size_t>(token) * head_dim + c];
      state.key_sum[c] += k;
      state.key_sum[head_dim + c] += k * k;
    }
  }
  state.keys += kBlockTokens;
  state.key_variance.resize(head_dim);
  for (int c = 0; c < head_dim; ++c) {
    const double mean = state.key_sum[c] / state.keys, square = state.key_sum[head_dim + c] / state.keys;
    state.key_variance[c] = static_cast<float>(std::max(0.0, square - mean * mean));
  }
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
    LearnHead(layer, kv_head, weight);
  });
}

void RowRecall::Rest() {
  unsent = Unsent();
  inflight.clear();
  arrived.clear();
  staging_.Clear();
  for (HeadState& state : heads_) {
    state.query.clear();
    state.age = 0;
    state.owed = false;
    state.expected.clear();
  }
}

bool RowRecall::Due(int layer, int kv_head, absl::Span<const float* const> queries) {
  HeadState& state = head(layer, kv_head);
  const int head_dim = layout_.head_dim;
  bool due = begins_answer() || state.query.empty() || state.key_variance.empty() || ++state.age >= spec_.interval;
  // By how much the scaled q.k have moved apart: their change has this variance over the keys.
  const float turn = static_cast<float>(spec_.turn) * (1.0f + (kTurnOfEnough - 1.0f) * EnoughSlots(slots_, state.keys));
  const float most = turn * turn * static_cast<float>(head_dim);
  for (int g = 0; g < group_ && !due; ++g) {
    const float* before = state.query.data() + static_cast<size_t>(g) * head_dim;
    due = !(WeightedDistance(queries[g], before, state.key_variance.data(), head_dim) < most);
  }
  if (!due) return false;
  state.query.clear();
  for (int g = 0; g < group_; ++g) state.query.insert(state.query.end(), queries[g], queries[g] + head_dim);
  state.age = 0;
  return true;
}

bool RowRecall::MeasuresWorth() const { return spec_.trigger == RecallTrigger::kScore && ShortlistRows(spec_) > 0; }

bool RowRecall::WorthChoosing(const RowScores& scores) const {
  if (!scores.any()) return false;
  if (!MeasuresWorth() || begins_answer()) return true;
  return scores.worth >= kLeastWorth * (1.0f + EnoughSlots(slots_, scores.positions));
}

void RowRecall::Expect(int layer, int kv_head, absl::Span<const MissingPosition> wanted,
                       absl::Span<const int32_t> victims) {
  HeadState& state = head(layer, kv_head);
  for (const MissingPosition& row : wanted) state.expected.push_back(row.position);
  state.victims.assign(victims.begin(), victims.end());
}

bool RowRecall::TakeExpected(int layer, int kv_head, RowChoice& choice) {
  HeadState& state = head(layer, kv_head);
  if (state.expected.empty()) return false;
  choice.wanted.clear();
  std::erase_if(state.expected, [&](int32_t position) {
    if (!staging_.Has(layer * layout_.kv_heads + kv_head, position)) return false;
    choice.wanted.push_back(position);
    return true;
  });
  choice.victims = state.victims;
  return !choice.wanted.empty();
}

bool RowRecall::FindCandidates(const SequenceRows& rows, const BlockLog& log, int layer, int kv_head,
                               RowScores& scores) const {
  const HeadRows& resident = rows.head(layer, kv_head);
  scores.state.assign(scores.positions, RecallState::kCandidate);
  scores.slots.clear();
  scores.joint.clear();
  int32_t candidates = scores.positions;
  if (log.AnyLost()) {
    for (int32_t first = 0; first < scores.positions; first += kBlockTokens) {
      if (!log.IsLost(first / kBlockTokens, layer)) continue;
      const int32_t end = std::min(scores.positions, first + kBlockTokens);
      std::fill(scores.state.begin() + first, scores.state.begin() + end, RecallState::kOut);
      candidates -= end - first;
    }
  }
  // In the order of the slots, which is that of memory.
  for (int32_t slot = 0; slot < resident.slots(); ++slot) {
    const int32_t position = resident.position(slot);
    if (position < 0 || position >= scores.positions) continue;
    // To want a kept mixture means to put its own row back in its place.
    if (resident.merged()[slot] != 0) continue;
    // Without a branch: which rows are kept is hard to guess. A slot's row is here though its block may be lost.
    const bool kept = resident.kind(slot) == RowKind::kKept;
    candidates -= static_cast<int32_t>(kept) - static_cast<int32_t>(scores.state[position] == RecallState::kOut);
    scores.state[position] = kept ? RecallState::kOut : RecallState::kSlot;
  }
  return candidates > 0;
}

void RowRecall::FindSlots(const SequenceRows& rows, int layer, int kv_head, RowScores& scores) const {
  const HeadRows& resident = rows.head(layer, kv_head);
  scores.slots.resize(resident.order().size());
  scores.slot.resize(scores.slots.size());
  size_t slots = 0;
  for (int32_t slot : resident.order()) {
    const int32_t position = resident.position(slot);
    if (position >= scores.positions) break;
    scores.slots[slots] = {position, 0};
    scores.slot[slots] = slot;
    slots += static_cast<size_t>(scores.state[position] == RecallState::kSlot);
  }
  scores.slots.resize(slots);
  scores.slot.resize(slots);
}

float RowRecall::LeastWanted(const HeadState& state, const RowScores& scores) const {
  const float theta = state.threshold.started ? state.threshold.theta : 0.0f;
  return std::max(static_cast<float>(spec_.min_share) / scores.mass, static_cast<float>(spec_.ema_margin) * theta);
}

void RowRecall::Score(const SequenceRows& rows, const BlockLog& log, int layer, int kv_head,
                      absl::Span<const float* const> queries, int32_t positions, bool waits, RowScores& scores) const {
  const int head_dim = layout_.head_dim;
  const int32_t blocks = log.full_blocks();
  scores.positions = std::min(positions, log.tokens());
  scores.group = group_;
  scores.scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  scores.mass = 0;
  scores.is_listed = false;
  scores.shortlist.clear();
  // While the codes are scanned.
  rows.head(layer, kv_head).Prefetch();
  const char* tail = log.TailRows(layer, kv_head);
  for (int32_t token = 0; token < log.tail_tokens(); ++token) {
    const char* key = tail + token * layout_.row_bytes();
    for (size_t at = 0; at < layout_.row_bytes() / 2; at += 64) __builtin_prefetch(key + at);
  }

  scores.stride = static_cast<size_t>(blocks + 1) * kBlockTokens;
  scores.estimate.resize(group_ * scores.stride);
  absl::FixedArray<float*, 16> of_query(group_);
  for (int g = 0; g < group_; ++g) of_query[g] = scores.estimate.data() + g * scores.stride;
  index_->Score(layer * layout_.kv_heads + kv_head, queries, blocks, of_query.data());
  if (!FindCandidates(rows, log, layer, kv_head, scores)) return;
  // The block being filled is not indexed yet: its exact keys are here.
  ScoreRows(queries, tail, blocks * kBlockTokens, scores.positions, absl::MakeSpan(of_query));

  const bool by_cosine = !waits && spec_.trigger == RecallTrigger::kCosine;
  if (by_cosine) SetNearness(rows, log, layer, kv_head, queries, scores);
  const int extra = by_cosine ? 0 : ShortlistRows(spec_);
  if (extra == 0 || waits) FindSlots(rows, layer, kv_head, scores);
  if (extra == 0) {  // nothing will be compared with the estimates: the caches hold half as much
    scores.SumShares(scores.estimate.data());
    return scores.share.swap(scores.estimate);
  }
  scores.share.resize(group_ * scores.stride);
  scores.SumShares(scores.share.data());
  const HeadState& state = heads_[layer * layout_.kv_heads + kv_head];
  if (waits) {
    scores.SetWeights(0);
    return scores.Shortlist(0, slots_ + extra);
  }
  const float least = LeastWanted(state, scores);
  scores.MeasureWorth(least);
  if (!WorthChoosing(scores)) return;
  FindSlots(rows, layer, kv_head, scores);
  scores.List(Reach(least));
  scores.Shortlist(Reach(least), slots_ + extra);
}

float RowRecall::Reach(float least) const { return begins_answer() ? 0.0f : kReach * least; }

bool RowRecall::PrepareScan(const SequenceRows& rows, const BlockLog& log, int layer, int kv_head,
                            absl::Span<const float* const> queries, int32_t positions, RowScores& scores,
                            IndexScan& scan) const {
  // A scan tells no cosines.
  if (spec_.placement != IndexPlacement::kDevice || spec_.trigger == RecallTrigger::kCosine) return false;
  const int head = layer * layout_.kv_heads + kv_head;
  scan.index = index_->Codes(head);
  const int32_t coded = scan.index.segments.empty() ? 0 : scan.index.rows(), blocks = log.full_blocks();
  scores.group = group_;
  scores.scale = 1.0f / std::sqrt(static_cast<float>(layout_.head_dim));
  scores.positions = scan.positions = std::min(positions, log.tokens());
  if (coded == 0 || !FindCandidates(rows, log, layer, kv_head, scores)) return false;
  FindSlots(rows, layer, kv_head, scores);
  scan.queries = queries;
  scan.count = kFoundOf * (slots_ + std::max<int>(ShortlistRows(spec_), kMostAhead));
  scan.candidates.assign((scan.positions + 31) / 32, 0);
  for (int32_t i = 0; i < scan.positions; ++i) {
    scan.candidates[i / 32] |= static_cast<uint32_t>(scores.state[i] != RecallState::kOut) << i % 32;
  }
  scan.held.clear();
  for (const SlotRow& row : scores.slots) scan.held.push_back(row.position);

  scan.exact.clear();
  const int32_t first = blocks * kBlockTokens, count = std::max(0, scan.positions - coded);
  if (count == 0) return true;
  const size_t stride = static_cast<size_t>(std::max(blocks * kBlockTokens - coded, 0)) + kBlockTokens;
  std::vector<float> exact(group_ * stride);
  absl::FixedArray<float*, 16> of_query(group_);
  for (int g = 0; g < group_; ++g) of_query[g] = exact.data() + g * stride;
  index_->ScoreUncoded(head, queries, blocks, of_query.data());
  for (float*& to : of_query) to -= coded;
  ScoreRows(queries, log.TailRows(layer, kv_head), first, scan.positions, absl::MakeSpan(of_query));
  for (int g = 0; g < group_; ++g) {
    const auto from = exact.begin() + static_cast<int64_t>(g * stride);
    scan.exact.insert(scan.exact.end(), from, from + count);
  }
  return true;
}

void RowRecall::TakeScan(IndexScan& scan, bool waits, RowScores& scores) const {
  scores.is_listed = true;
  scores.mass = 0;
  scores.shortlist.clear();
  scores.listed.swap(scan.rows);
  scores.stride = scores.listed.size();
  scores.estimate.swap(scan.estimate);
  scores.share.swap(scan.share);
  scores.rest.swap(scan.rest);
  scores.sum.swap(scan.sum);
  for (int g = 0; g < group_; ++g) scores.mass += scores.sum[g] / scan.all[g] / static_cast<float>(group_);
  const int extra = ShortlistRows(spec_);
  if (extra == 0) return;
  scores.SetWeights(-1);  // all are above
  const float least = waits ? 0.0f : LeastWanted(heads_[scan.index.head], scores);
  if (!waits) {
    scores.MeasureWorth(least);
    if (!WorthChoosing(scores)) return;
  }
  scores.Shortlist(Reach(least), slots_ + extra);
}

void RowRecall::Follow(const SequenceRows& rows, const BlockLog& log, int layer, int kv_head,
                       absl::Span<const float> shares, RowScores& scores) const {
  scores.positions = static_cast<int32_t>(shares.size());
  scores.group = group_;
  scores.mass = scores.worth = 0;
  scores.is_listed = false;
  scores.shortlist.clear();
  if (!FindCandidates(rows, log, layer, kv_head, scores)) return;
  FindSlots(rows, layer, kv_head, scores);
  scores.mass = scores.worth = 1;  // weights and shares are the same, and worth it in the layer below
  scores.weight.assign(shares.begin(), shares.end());
  ChooseBy(shares, layer, kv_head, scores);
}

float RowRecall::Near(int layer, int kv_head) const {
  const EmaThreshold& threshold = heads_[layer * layout_.kv_heads + kv_head].threshold;
  return threshold.started && spec_.trigger == RecallTrigger::kScore ? kNear * threshold.theta : 0.0f;
}

void RowRecall::Weigh(int layer, int kv_head, RowScores& scores) const {
  scores.Correct();
  scores.SetWeights(scores.is_listed ? -1.0f : Near(layer, kv_head));  // of those listed, all are above
}

void RowRecall::ScoreRows(absl::Span<const float* const> queries, const char* rows, int32_t first, int32_t end,
                          absl::Span<float*> of_query) const {
  const int head_dim = layout_.head_dim;
  for (float*& to : of_query) to += first;
  if (layout_.type == KvType::kF16) {
    const auto stride = static_cast<int64_t>(layout_.row_bytes() / sizeof(uint16_t));
    DotHalves({reinterpret_cast<const uint16_t*>(rows), stride, std::max(0, end - first), head_dim}, group_,
              queries.data(), of_query.data());
    return;
  }
  for (int32_t i = 0; i < end - first; ++i, rows += layout_.row_bytes()) {
    for (int g = 0; g < group_; ++g) {
      of_query[g][i] = Dot(queries[g], reinterpret_cast<const float*>(rows), head_dim);
    }
  }
}

void RowRecall::SetNearness(const SequenceRows& rows, const BlockLog& log, int layer, int kv_head,
                            absl::Span<const float* const> queries, RowScores& scores) const {
  const int head_dim = layout_.head_dim;
  const std::vector<float>& coded = heads_[layer * layout_.kv_heads + kv_head].key_lengths;
  std::vector<float> lengths(coded.begin(), coded.begin() + std::min<size_t>(coded.size(), scores.positions));
  float key[kMaxHeadDim];
  const char* row = log.TailRows(layer, kv_head);
  for (; lengths.size() < static_cast<size_t>(scores.positions); row += layout_.row_bytes()) {
    KeyToFloat(layout_, row, key);
    lengths.push_back(Length(key, head_dim));
  }
  std::vector<float> query_lengths;
  for (const float* query : queries) query_lengths.push_back(Length(query, head_dim));
  scores.nearness.resize(scores.positions);
  BestCosines(scores.estimate, scores.stride, query_lengths, lengths, absl::MakeSpan(scores.nearness));
  const HeadRows& resident = rows.head(layer, kv_head);
  scores.nearest = -1;
  for (const int32_t slot : resident.order()) {
    const int32_t position = resident.position(slot);
    if (position >= scores.positions) break;
    scores.nearest = std::max(scores.nearest, scores.nearness[position]);
  }
  for (float& nearness : scores.nearness) nearness += 1;  // choices are made among what is above 0
}

void RowRecall::OwnScores(absl::Span<const float* const> queries, absl::Span<const char* const> rows,
                          float* out) const {
  const size_t count = rows.size();
  if (layout_.type != KvType::kF16) {
    for (int g = 0; g < group_; ++g) {
      for (size_t i = 0; i < count; ++i) {
        out[g * count + i] = Dot(queries[g], reinterpret_cast<const float*>(rows[i]), layout_.head_dim);
      }
    }
    return;
  }
  absl::FixedArray<float*, 16> of_query(group_);
  for (int g = 0; g < group_; ++g) of_query[g] = out + g * count;
  // Rows begin with their keys.
  DotHalvesAt(reinterpret_cast<const uint16_t* const*>(rows.data()), static_cast<int32_t>(count), layout_.head_dim,
              group_, queries.data(), of_query.data());
}

void RowRecall::Compare(absl::Span<const float* const> queries, absl::Span<const int32_t> places,
                        absl::Span<const char* const> rows, RowScores& scores) const {
  if (places.empty()) return;
  scores.compared += static_cast<int>(places.size());
  absl::FixedArray<float, 1024> own(static_cast<size_t>(group_) * places.size());
  OwnScores(queries, rows, own.data());
  for (int g = 0; g < group_; ++g) {
    for (size_t i = 0; i < places.size(); ++i) scores.SetExact(places[i], g, own[g * places.size() + i]);
  }
}

void RowRecall::Average(HeadState& state, RowScores& scores) const {
  const float beta = static_cast<float>(spec_.ema_beta);
  auto before = state.average.begin();
  for (SlotRow& row : scores.slots) {
    const float weight = scores.chosen_by()[row.position];
    while (before != state.average.end() && before->position < row.position) ++before;
    const bool known = before != state.average.end() && before->position == row.position;
    row.average = known ? beta * before->average + (1 - beta) * weight : weight;
    row.since = known ? before->since : scores.positions;
  }
  state.average = scores.slots;
}

RowChoice RowRecall::Choose(int layer, int kv_head, RowScores& scores, bool exact) {
  RowChoice choice;
  if (!exact && !WorthChoosing(scores)) return choice;
  HeadState& state = head(layer, kv_head);
  state.expected.clear();
  if (!scores.any()) return choice;
  const bool by_cosine = spec_.trigger == RecallTrigger::kCosine;
  const float beta = static_cast<float>(spec_.ema_beta);
  float near = Near(layer, kv_head);
  if (scores.joint.empty()) Weigh(layer, kv_head, scores);
  Average(state, scores);
  const RecallRows rows{scores.chosen_by(), scores.state};
  const auto rows_above = static_cast<size_t>(scores.rows_above);
  const WeighedRows above{{scores.above.data(), rows_above}, {scores.above_weight.data(), rows_above}};
  RecallChoice chosen;
  std::vector<int32_t> best, runners_up;
  if (exact) {
    const int count = spec_.mode == RecallMode::kAsync ? 2 * slots_ : slots_;
    best = scores.is_listed ? BestOf(above, count) : BestRows(rows, count);
    if (best.size() > static_cast<size_t>(slots_)) {
      runners_up.assign(best.begin() + slots_, best.end());
      best.resize(slots_);
    }
    chosen = ChooseBest(rows, scores.slots, best);
    const bool full = best.size() == static_cast<size_t>(slots_) && slots_ > 0;
    if (!by_cosine) state.threshold.Update(full ? rows.weight[best.back()] : 0.0f, beta);
  } else {
    TopRows& top = scores.top;
    const RecallRows ranked{by_cosine ? scores.nearness : scores.chosen_by(), scores.state};
    if (scores.is_listed && above.positions.size() < static_cast<size_t>(slots_)) {
      top.rows = above;  // the others are not for slots
      top.kth = 0;
    } else {
      FindTopRows(ranked, slots_, near > 0 || scores.is_listed ? above : WeighedRows(), top);
    }
    const int most = spec_.max_rows_per_step > 0 ? spec_.max_rows_per_step : std::max(1, slots_ / 2);
    float least, followed;
    if (by_cosine) {
      state.threshold.Update(scores.nearest, 1 - beta);
      least = followed = near = std::nextafter(1 + state.threshold.theta, 0.0f);  // what is as near is wanted, too
    } else {
      // The first step has no threshold yet: everything that would be among the best is wanted.
      least = LeastWanted(state, scores);
      followed = kFollowedShare / scores.mass;
      state.threshold.Update(top.kth, beta);
    }
    chosen = ChooseAbove(ranked, scores.slots, top, least, slots_, most);
    best = RowsAbove(top, followed);
  }
  choice.wanted = std::move(chosen.wanted);
  choice.victims = std::move(chosen.victims);
  if (spec_.mode == RecallMode::kAsync) {
    const int index = layer * layout_.kv_heads + kv_head;
    auto take = [&](int32_t position) {
      if (scores.state[position] == RecallState::kCandidate && !staging_.Has(index, position)) {
        choice.ahead.push_back(position);
      }
      return choice.ahead.size() < kMostAhead;
    };
    RowsAhead(best, scores.state, spec_.follow_rows, slots_, take);
    auto take_all = [&](const std::vector<int32_t>& positions) {
      if (choice.ahead.size() < kMostAhead) std::all_of(positions.begin(), positions.end(), take);
    };
    take_all(runners_up);
    if (!exact && near > 0 && choice.ahead.size() < kMostAhead) RunnersUp(scores.top, near, take);
    take_all(scores.shortlist);
  }
  return choice;
}

void RowRecall::Promote(SequenceRows& rows, int32_t tokens) {
  if (spec_.promote_after == 0) return;
  for (int layer = 0; layer < layout_.layers; ++layer) {
    for (int kv_head = 0; kv_head < layout_.kv_heads; ++kv_head) {
      HeadRows& resident = rows.head(layer, kv_head);
      std::erase_if(head(layer, kv_head).average, [&](const SlotRow& row) {
        if (tokens - row.since < spec_.promote_after) return false;
        const int32_t slot = resident.Find(row.position);
        if (slot >= 0 && resident.kind(slot) == RowKind::kRecalled) {
          resident.set_kind(slot, RowKind::kKept);
          ++counters_.promoted_rows;
        }
        return true;
      });
    }
  }
}

}  // namespace tidepool
