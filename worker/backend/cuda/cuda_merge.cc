// D2O's merging on the device.
#include <algorithm>
#include <utility>

#include "worker/backend/cuda/cuda_backend.h"
#include "worker/backend/cuda/for_lanes.h"

namespace tidepool::cuda {
namespace {

constexpr int kCtasOfMultiprocessor = 4;
constexpr int kMostSplits = 32;       // of the kept rows
constexpr int kLeastPagesOfPart = 8;  // of a warp
// Rows of all heads that are compared at once: 16 MiB of keys at a head_dim of 128.
constexpr size_t kMostGoing = 65536;

}  // namespace

bool CudaBackend::MostAlike(const SequenceRows& rows, int layer, absl::Span<AlikeTask> tasks) {
  size_t most = 0;
  for (AlikeTask& task : tasks) {
    task.target.clear();
    task.similarity.clear();
    most = std::max(most, task.going.size());
  }
  const size_t at_once = std::max<size_t>(1, kMostGoing / tasks.size());
  MutexLock lock(&mutex_);
  for (size_t first = 0; first < most; first += at_once) {
    Wait();
    uploads_.Hold();
    FlushWrites();
    FindAlike(rows, layer, tasks, first, at_once);
    uploads_.Release();
  }
  return true;
}

void CudaBackend::FindAlike(const SequenceRows& rows, int layer, absl::Span<AlikeTask> tasks, size_t first,
                            size_t at_once) {
  PageTables& tables = PageTables::Of(device_.get(), *pages_, rows);
  tables.Reserve();
  std::vector<UpdateEntries::Update> updates;
  std::vector<AlikeJob> jobs;
  size_t going = 0, slots = 0;
  int32_t most_going = 0, most_pages = 0;
  for (const AlikeTask& task : tasks) {
    const HeadRows& head = rows.head(layer, task.kv_head);
    AlikeJob& job = jobs.emplace_back();
    job.head = tables.Refresh(layer, task.kv_head, updates);
    job.count =
        static_cast<int32_t>(std::min(at_once, task.going.size() > first ? task.going.size() - first : size_t{0}));
    std::vector<RowPlace> places;
    for (const int32_t slot : task.going.subspan(std::min(first, task.going.size()), job.count)) {
      places.push_back(PlaceOf(head, slot));
    }
    job.going = uploads_.Upload(absl::MakeConstSpan(places));
    std::vector<int32_t> rank(static_cast<size_t>(job.head.pages) * kSlotsOfPage, -1);
    for (size_t i = 0; i < task.kept.size(); ++i) rank[task.kept[i]] = static_cast<int32_t>(i);
    job.rank = uploads_.Upload(absl::MakeConstSpan(rank));
    going += job.count;
    slots += rank.size();
    most_going = std::max(most_going, job.count);
    most_pages = std::max(most_pages, job.head.pages);
  }
  ApplyUpdates(updates);
  const auto count = static_cast<int>(jobs.size());
  const int tiles = CeilDiv(most_going, AlikeRows<16>::kRows);
  const int wanted = CeilDiv(multiprocessors_ * kCtasOfMultiprocessor, int64_t{tiles} * count);
  const int splits =
      std::clamp(std::min(wanted, CeilDiv(most_pages, kLeastPagesOfPart * AlikeRows<16>::kWarps)), 1, kMostSplits);
  const auto parts = static_cast<size_t>(AlikeRows<16>::PartsOf(splits));
  auto* keys = alike_keys_.Get<uint16_t>(going * layout_.head_dim);
  auto* lengths = alike_lengths_.Get<float>(going + slots);
  auto* cosines = alike_cosines_.Get<float>(parts * going);
  auto* best = alike_best_.Get<int32_t>(parts * going);
  for (AlikeJob& job : jobs) {
    job.keys = std::exchange(keys, keys + static_cast<size_t>(job.count) * layout_.head_dim);
    job.length = std::exchange(lengths, lengths + job.count);
    job.inverse = std::exchange(lengths, lengths + static_cast<size_t>(job.head.pages) * kSlotsOfPage);
    job.cosine = std::exchange(cosines, cosines + parts * job.count);
    job.best = std::exchange(best, best + parts * job.count);
  }
  const MeasureKeys::Args args{pages_->view(), uploads_.Upload(absl::MakeConstSpan(jobs))};
  device_->Launch<MeasureKeys>(
      {CeilDiv(int64_t{most_going} + int64_t{most_pages} * kSlotsOfPage, MeasureKeys::kWarps), count}, args);
  ForLanes(LanesOf(layout_.head_dim), [&]<int kLanes>() {
    device_->Launch<AlikeRows<kLanes>>({tiles, splits, count}, args);
  });
  auto* host_cosines = host_cosines_.Get<float>(parts * going);
  auto* host_best = host_best_.Get<int32_t>(parts * going);
  device_->CopyToHost(host_cosines, alike_cosines_.As<float>(), parts * going * sizeof(float));
  device_->CopyToHost(host_best, alike_best_.As<int32_t>(), parts * going * sizeof(int32_t));
  Wait();
  for (size_t j = 0; j < jobs.size(); ++j) {
    for (int32_t row = 0; row < jobs[j].count; ++row) {
      float cosine = kNoCosine;
      int32_t target = 0;
      for (size_t part = 0; part < parts; ++part) {
        const size_t at = part * jobs[j].count + row;
        if (host_best[at] < 0 || host_cosines[at] < cosine) continue;
        if (host_cosines[at] > cosine || host_best[at] < target) {
          cosine = host_cosines[at];
          target = host_best[at];
        }
      }
      tasks[j].target.push_back(target);
      tasks[j].similarity.push_back(cosine);
    }
    host_cosines += parts * jobs[j].count;
    host_best += parts * jobs[j].count;
  }
}

void CudaBackend::MixRows(SequenceRows& rows, int layer, absl::Span<const MixTask> tasks) {
  if (tasks.empty()) return;
  std::vector<cuda::MixRows::Mixture> mixtures;
  std::vector<cuda::MixRows::Source> sources;
  for (const MixTask& task : tasks) {
    const HeadRows& head = rows.head(layer, task.kv_head);
    mixtures.push_back({.from = PlaceOf(head, task.from),
                        .to = PlaceOf(head, task.to),
                        .first = static_cast<int32_t>(sources.size()),
                        .count = static_cast<int32_t>(task.sources.size()),
                        .own = task.own,
                        .divisor = task.divisor});
    for (const auto& [slot, weight] : task.sources) sources.push_back({PlaceOf(head, slot), weight});
  }
  MutexLock lock(&mutex_);
  FlushWrites();
  fresh_.rows.clear();
  device_->Launch<cuda::MixRows>(
      {static_cast<int>(mixtures.size())},
      {pages_->view(), uploads_.Upload(absl::MakeConstSpan(mixtures)), uploads_.Upload(absl::MakeConstSpan(sources))});
}

}  // namespace tidepool::cuda
