#include "cacheservice/shards/sharded_recall.h"

#include <bit>
#include <utility>

namespace tidepool {

PodChoices ChoicesToRead(const BlockKey& key, const Placement& placement, const BlockSites& sites, int copies) {
  const PodChoices planned = PodsToRead(key, placement.shares, copies);
  const uint32_t site = sites.Find(key);
  const int index = site == 0 ? -1 : placement.IndexOf(site);
  if (index < 0) return planned;
  PodChoices choices;
  choices.Add(static_cast<size_t>(index));
  for (int i = 0; i < planned.count; ++i) choices.Add(planned.pods[i]);
  return choices;
}

ShardedRecall::ShardedRecall(std::shared_ptr<const Placement> placement, BlockSites* sites,
                             std::vector<RowSelection> selections, size_t row_bytes, absl::Time deadline, Done done)
    : placement_(std::move(placement)),
      sites_(sites),
      deadline_(deadline),
      done_(std::move(done)),
      merge_(std::move(selections), row_bytes) {}

void ShardedRecall::Start(std::shared_ptr<const Placement> placement, BlockSites* sites, int copies,
                          std::vector<RowSelection> selections, size_t row_bytes, absl::Time deadline, Done done) {
  const std::shared_ptr<ShardedRecall> recall(
      new ShardedRecall(std::move(placement), sites, std::move(selections), row_bytes, deadline, std::move(done)));
  std::vector<uint32_t> all;
  {
    MutexLock lock(&recall->mutex_);
    const size_t count = recall->merge_.size();
    recall->asked_.assign(count, 0);
    recall->choices_.reserve(count);
    for (uint32_t i = 0; i < count; ++i) {
      const BlockKey& key = recall->merge_.selection(i).block.key;
      // Heads and layers of a block follow one another: its place is computed once.
      const bool same = i > 0 && recall->merge_.selection(i - 1).block.key == key;
      recall->choices_.push_back(same ? recall->choices_.back()
                                      : ChoicesToRead(key, *recall->placement_, *recall->sites_, copies));
      all.push_back(i);
    }
  }
  recall->Ask(all);
  recall->Finish();
}

void ShardedRecall::Ask(const std::vector<uint32_t>& indices) {
  struct Part {
    std::vector<uint32_t> indices;
    std::vector<RowSelection> selections;
  };
  std::vector<Part> parts(placement_->pods.size());
  {
    MutexLock lock(&mutex_);
    for (const uint32_t index : indices) {
      const uint64_t missing = merge_.Missing(index);
      if (missing == 0 || asked_[index] == choices_[index].count) continue;
      Part& part = parts[choices_[index].pods[asked_[index]++]];
      part.indices.push_back(index);
      RowSelection& selection = part.selections.emplace_back(merge_.selection(index));
      selection.row_mask = missing;
    }
    for (const Part& part : parts) under_way_ += !part.indices.empty();
  }
  for (size_t pod = 0; pod < parts.size(); ++pod) {
    Part& part = parts[pod];
    if (part.indices.empty()) continue;
    auto asked = std::make_shared<const std::vector<uint32_t>>(std::move(part.indices));
    auto take = [self = shared_from_this(), pod, asked](absl::StatusOr<RecalledRows> rows) {
      self->Take(pod, *asked, std::move(rows));
    };
    const bool sent = placement_->pods[pod]->Use(
        [&](RemoteCache& cache) { cache.Recall(std::move(part.selections), deadline_, take); });
    if (!sent) take(absl::UnavailableError("the connections to the cache service are being closed"));
  }
}

void ShardedRecall::Take(size_t pod, const std::vector<uint32_t>& indices, absl::StatusOr<RecalledRows> part) {
  placement_->pods[pod]->Report(part.status());
  std::vector<BlockKey> found_later;  // not where they are looked for first
  {
    MutexLock lock(&mutex_);
    if (part.ok()) {
      any_ = true;
      complete_ = complete_ && part->complete;
      for (size_t i = 0; i < indices.size(); ++i) {
        if (part->found[i] != 0 && asked_[indices[i]] > 1)
          found_later.push_back(merge_.selection(indices[i]).block.key);
      }
      merge_.Add(indices, *std::move(part));
    } else {
      if (failure_.ok()) failure_ = part.status();
      complete_ = false;
      int64_t rows = 0;
      for (const uint32_t index : indices) rows += std::popcount(merge_.Missing(index));
      placement_->pods[pod]->CountFailedRows(rows);
    }
  }
  const uint32_t id = placement_->pods[pod]->id();
  for (size_t i = 0; i < found_later.size(); ++i) {
    if (i == 0 || found_later[i] != found_later[i - 1]) sites_->Put(found_later[i], id);
  }
  Ask(indices);
  Finish();
}

void ShardedRecall::Finish() {
  std::optional<absl::StatusOr<RecalledRows>> answer;
  {
    MutexLock lock(&mutex_);
    if (--under_way_ > 0) return;
    if (!any_) {
      answer = failure_.ok() ? absl::UnavailableError("cache service: no pod can be asked") : failure_;
    } else {
      bool missing = false;
      for (size_t i = 0; i < merge_.size(); ++i) missing = missing || merge_.Missing(i) != 0;
      answer = std::move(merge_).Finish();
      // What is missing may lie on a pod that is away.
      (*answer)->complete = !missing || (complete_ && placement_->unheard() == 0);
    }
  }
  done_(*std::move(answer));
}

}  // namespace tidepool
