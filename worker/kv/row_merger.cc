#include "worker/kv/row_merger.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "base/check.h"
#include "policies/retain/merge_nearest.h"
#include "worker/kernels/cpu/nearest_rows.h"
#include "worker/kv/window_attention.h"

namespace tidepool {
namespace {

// Evicted rows of a head that are compared with the kept ones where these lie: each goes through all keys once.
constexpr size_t kFew = 4;
constexpr size_t kFewHeads = 16;  // of a layer: room on the stack, else on the heap

// Of each head.
std::vector<RowVectors> ReadAll(Backend& backend, const SequenceRows& rows, int layer,
                                absl::Span<const std::vector<int32_t>> slots) {
  std::vector<RowVectors> vectors;
  for (size_t head = 0; head < slots.size(); ++head) {
    vectors.push_back(ReadVectors(backend, rows, layer, static_cast<int>(head), slots[head]));
  }
  return vectors;
}

MergeOptions OptionsOf(const CompressionSpec& spec) {
  MergeOptions options;
  options.alpha = spec.merge_ema_alpha;
  options.beta = spec.merge_ema_beta;
  return options;
}

}  // namespace

RowMerger::RowMerger(const KvLayout& layout, const CompressionSpec& spec)
    : layout_(layout), fate_(spec.fate), options_(OptionsOf(spec)), state_(layout.layers) {}

RowMerger::Targets RowMerger::MergeLike(int layer, absl::Span<RowVectors> kept_rows,
                                        absl::Span<const RowVectors> evicted_rows, MergeResult found) {
  const size_t heads = kept_rows.size(), head_dim = layout_.head_dim;
  const size_t count = evicted_rows[0].keys.size() / head_dim;
  std::vector<MergeHead> merge(heads);
  for (size_t head = 0; head < heads; ++head) {
    TIDEPOOL_CHECK(evicted_rows[head].keys.size() == count * head_dim);
    merge[head] = {kept_rows[head].keys.data(), kept_rows[head].values.data(),
                   static_cast<int>(kept_rows[head].keys.size() / head_dim), evicted_rows[head].keys.data(),
                   evicted_rows[head].values.data()};
  }
  MergeFound(merge, static_cast<int>(count), static_cast<int>(head_dim), options_, state_[layer], found);
  Targets targets = found.target;
  for (size_t head = 0; head < heads; ++head) {
    for (size_t e = 0; e < count; ++e) {
      if (!found.merged[head][e]) targets[head][e] = -1;
    }
  }
  return targets;
}

MergeResult RowMerger::FindAmong(absl::Span<const RowVectors> kept_rows,
                                 absl::Span<const RowVectors> evicted_rows) const {
  const int head_dim = layout_.head_dim;
  MergeResult found;
  for (size_t head = 0; head < kept_rows.size(); ++head) {
    const auto kept = static_cast<int32_t>(kept_rows[head].keys.size() / head_dim);
    const auto evicted = static_cast<int32_t>(evicted_rows[head].keys.size() / head_dim);
    TIDEPOOL_CHECK(kept > 0);
    const std::vector<float> rows = UnitRowBlocks(kept_rows[head].keys.data(), kept, head_dim, kNearestBlock);
    const std::vector<float> vectors = UnitRows(evicted_rows[head].keys.data(), evicted, head_dim);
    std::vector<float>& similarity = found.similarity.emplace_back(evicted);
    std::vector<int32_t>& target = found.target.emplace_back(evicted);
    FindNearestRows({.rows = rows.data(),
                     .count = kept,
                     .dim = head_dim,
                     .vectors = vectors.data(),
                     .vector_count = evicted,
                     .best = similarity.data(),
                     .row = target.data()});
  }
  return found;
}

RowMerger::Targets RowMerger::MergeNearest(const SequenceRows& rows, int layer,
                                           absl::Span<const std::vector<int32_t>> kept,
                                           absl::Span<const std::vector<int32_t>> evicted,
                                           absl::Span<RowVectors> kept_rows,
                                           absl::Span<const RowVectors> evicted_rows) const {
  Targets targets(kept.size());
  for (size_t head = 0; head < kept.size(); ++head) {
    const HeadRows& of_head = rows.head(layer, static_cast<int>(head));
    const auto positions = [&](const std::vector<int32_t>& slots) {
      std::vector<int32_t> result;
      for (int32_t slot : slots) result.push_back(of_head.position(slot));
      return result;
    };
    if (kept[head].empty()) {
      targets[head].assign(evicted[head].size(), -1);
      continue;
    }
    targets[head] = NearestKept(positions(kept[head]), positions(evicted[head]));
    AverageInto(targets[head], evicted_rows[head].keys, layout_.head_dim, absl::MakeSpan(kept_rows[head].keys));
    AverageInto(targets[head], evicted_rows[head].values, layout_.head_dim, absl::MakeSpan(kept_rows[head].values));
  }
  return targets;
}

bool RowMerger::FindLike(Backend& backend, const SequenceRows& rows, int layer,
                         absl::Span<const RowVectors> evicted_rows, std::vector<std::vector<int32_t>>& kept,
                         MergeResult& found) const {
  const size_t heads = kept.size(), head_dim = layout_.head_dim, count = evicted_rows[0].keys.size() / head_dim;
  if (count > kFew) return false;
  std::vector<std::vector<int32_t>> target_slots(heads);
  found.similarity.resize(heads);
  found.target.resize(heads);
  for (size_t head = 0; head < heads; ++head) {
    std::vector<float> cosines(kept[head].size());
    for (size_t e = 0; e < count; ++e) {
      if (!backend.KeyCosines(rows, layer, static_cast<int>(head), evicted_rows[head].keys.data() + e * head_dim,
                              kept[head], cosines.data())) {
        return false;
      }
      const auto best = std::max_element(cosines.begin(), cosines.end());
      const int32_t slot = kept[head][best - cosines.begin()];
      std::vector<int32_t>& slots = target_slots[head];
      const auto target = std::find(slots.begin(), slots.end(), slot);
      found.similarity[head].push_back(*best);
      found.target[head].push_back(static_cast<int32_t>(target - slots.begin()));
      if (target == slots.end()) slots.push_back(slot);
    }
  }
  kept = std::move(target_slots);
  return true;
}

std::optional<int64_t> RowMerger::MergeInPlace(Backend& backend, SequenceRows& rows, int layer,
                                               absl::Span<const std::vector<int32_t>> kept,
                                               absl::Span<const std::vector<int32_t>> evicted) {
  const size_t heads = kept.size();
  std::vector<Backend::AlikeTask> alike(heads);
  for (size_t head = 0; head < heads; ++head) {
    TIDEPOOL_CHECK(evicted[head].size() == evicted[0].size());
    alike[head].kv_head = static_cast<int>(head);
    alike[head].going = evicted[head];
    alike[head].kept = kept[head];
  }
  if (!backend.MostAlike(rows, layer, absl::MakeSpan(alike))) return std::nullopt;
  MergeResult result;
  for (Backend::AlikeTask& task : alike) {
    result.similarity.push_back(std::move(task.similarity));
    result.target.push_back(std::move(task.target));
  }
  DecideMerges(static_cast<int>(evicted[0].size()), options_, state_[layer], result);
  return Mix(backend, rows, layer, kept, evicted, result);
}

int64_t RowMerger::Mix(Backend& backend, SequenceRows& rows, int layer, absl::Span<const std::vector<int32_t>> kept,
                       absl::Span<const std::vector<int32_t>> evicted, const MergeResult& result) {
  int64_t merged = 0;
  std::vector<Backend::MixTask> tasks;
  for (size_t h = 0; h < kept.size(); ++h) {
    const int kv_head = static_cast<int>(h);
    HeadRows& head = rows.head(layer, kv_head);
    for (const Mixture& mixture : MixturesOf(options_, result.similarity[h], result.target[h], result.merged[h])) {
      const int32_t slot = kept[h][mixture.target];
      Backend::MixTask& task = tasks.emplace_back();
      task.kv_head = kv_head;
      task.from = task.to = slot;
      task.own = mixture.own;
      task.divisor = mixture.divisor;
      for (const Mixture::Source& source : mixture.sources) {
        task.sources.emplace_back(evicted[h][source.evicted], source.weight);
        ++merged;
        if (observer_ != nullptr) {
          observer_->OnMerge(layer, kv_head, head.position(evicted[h][source.evicted]), head.position(slot));
        }
      }
      if (head.is_packed(slot)) task.to = head.MoveToPlain(rows.pool(), slot);
      head.merged()[task.to] = 1;
    }
  }
  backend.MixRows(rows, layer, tasks);
  return merged;
}

int64_t RowMerger::Merge(Backend& backend, SequenceRows& rows, int layer, std::vector<std::vector<int32_t>> kept,
                         absl::Span<const std::vector<int32_t>> evicted) {
  if (fate_ == Fate::kMerge) {
    if (const std::optional<int64_t> merged = MergeInPlace(backend, rows, layer, kept, evicted); merged.has_value()) {
      return *merged;
    }
  }
  const std::vector<RowVectors> evicted_rows = ReadAll(backend, rows, layer, evicted);
  std::optional<MergeResult> likes(std::in_place);
  if (fate_ != Fate::kMerge || !FindLike(backend, rows, layer, evicted_rows, kept, *likes)) likes.reset();
  return MergeRead(backend, rows, layer, kept, evicted, evicted_rows, std::move(likes));
}

int64_t RowMerger::MergeFew(Backend& backend, SequenceRows& rows, int layer, absl::Span<const Likes> heads) {
  if (heads[0].size() > 1) {
    std::vector<std::vector<int32_t>> targets, evicted;
    MergeResult found;
    for (const Likes& likes : heads) {
      std::vector<int32_t>&slots = targets.emplace_back(), &gone = evicted.emplace_back();
      std::vector<int32_t>& target = found.target.emplace_back();
      std::vector<float>& similarity = found.similarity.emplace_back();
      for (const Like& like : likes) {
        const auto known = std::find(slots.begin(), slots.end(), like.target);
        target.push_back(static_cast<int32_t>(known - slots.begin()));
        if (known == slots.end()) slots.push_back(like.target);
        gone.push_back(like.evicted);
        similarity.push_back(like.similarity);
      }
    }
    DecideMerges(static_cast<int>(heads[0].size()), options_, state_[layer], found);
    return Mix(backend, rows, layer, targets, evicted, found);
  }
  absl::InlinedVector<float, kFewHeads> similarity;
  for (const Likes& likes : heads) similarity.push_back(likes[0].similarity);
  if (!DecideMerge(similarity, options_, state_[layer])) return 0;
  absl::InlinedVector<Backend::MixTask, kFewHeads> tasks;
  for (size_t h = 0; h < heads.size(); ++h) {
    const Like& like = heads[h][0];
    HeadRows& head = rows.head(layer, static_cast<int>(h));
    const PairMixture mixture = MixtureOf(like.similarity);
    tasks.push_back({.kv_head = static_cast<int>(h),
                     .from = like.target,
                     .to = like.target,
                     .own = mixture.own,
                     .divisor = mixture.divisor,
                     .sources = {{like.evicted, mixture.weight}}});
    head.merged()[like.target] = 1;
    if (observer_ != nullptr) {
      observer_->OnMerge(layer, static_cast<int>(h), head.position(like.evicted), head.position(like.target));
    }
  }
  backend.MixRows(rows, layer, tasks);
  return static_cast<int64_t>(heads.size());
}

int64_t RowMerger::MergeRead(Backend& backend, SequenceRows& rows, int layer,
                             absl::Span<const std::vector<int32_t>> kept,
                             absl::Span<const std::vector<int32_t>> evicted, absl::Span<const RowVectors> evicted_rows,
                             std::optional<MergeResult> likes) {
  const int heads = layout_.kv_heads, head_dim = layout_.head_dim;
  std::vector<RowVectors> kept_rows = ReadAll(backend, rows, layer, kept);
  if (fate_ == Fate::kMerge && !likes.has_value()) likes = FindAmong(kept_rows, evicted_rows);
  const Targets targets = fate_ == Fate::kMerge
                              ? MergeLike(layer, absl::MakeSpan(kept_rows), evicted_rows, *std::move(likes))
                              : MergeNearest(rows, layer, kept, evicted, absl::MakeSpan(kept_rows), evicted_rows);

  int64_t merged = 0;
  std::string raw(layout_.row_bytes(), '\0');
  std::vector<float> row(2 * head_dim);
  for (int kv_head = 0; kv_head < heads; ++kv_head) {
    HeadRows& head = rows.head(layer, kv_head);
    std::vector<int32_t> changed;
    for (size_t e = 0; e < targets[kv_head].size(); ++e) {
      const int32_t target = targets[kv_head][e];
      if (target < 0) continue;
      ++merged;
      changed.push_back(target);
      if (observer_ != nullptr) {
        observer_->OnMerge(layer, kv_head, head.position(evicted[kv_head][e]), head.position(kept[kv_head][target]));
      }
    }
    std::sort(changed.begin(), changed.end());
    changed.erase(std::unique(changed.begin(), changed.end()), changed.end());
    for (int32_t i : changed) {
      std::copy_n(kept_rows[kv_head].keys.data() + int64_t{i} * head_dim, head_dim, row.data());
      std::copy_n(kept_rows[kv_head].values.data() + int64_t{i} * head_dim, head_dim, row.data() + head_dim);
      RowFromFloat(layout_, row.data(), raw.data());
      int32_t slot = kept[kv_head][i];
      // A mixture stays at full precision: it is in no stored block.
      if (head.is_packed(slot)) slot = head.MoveToPlain(rows.pool(), slot);
      backend.WriteRow(rows, layer, kv_head, slot, raw.data());
      head.merged()[slot] = 1;
    }
  }
  return merged;
}

void RowMerger::Save(ByteWriter& out) const {
  for (const MergeState& state : state_) out.PutVector(state.tau);
}

void RowMerger::Load(ByteReader& in) {
  for (MergeState& state : state_) state.tau = in.GetVector<double>();
}

}  // namespace tidepool
