// Recall's choice of rows on the device.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <utility>

#include "worker/backend/cuda/cuda_backend.h"

namespace tidepool::cuda {
namespace {

// Scores and ranks of rows that are chosen from at once.
constexpr size_t kMostScratch = size_t{64} << 20;

size_t ScratchOf(const IndexScan& scan) {
  return (scan.queries.size() + 1) * static_cast<size_t>(scan.positions) * sizeof(float);
}

// Words that come to the host: RecallJob's sums, found, row_estimate and row_share.
size_t AnswerOf(const IndexScan& scan) {
  const size_t queries = scan.queries.size(), told = scan.count + scan.held.size();
  return queries * RecallJob::kSums + 1 + scan.count + 2 * queries * told;
}

// From the answer, what was found and held in one order.
void TakeAnswer(const uint32_t* answer, IndexScan& scan) {
  const size_t queries = scan.queries.size(), told = scan.count + scan.held.size();
  const uint32_t *sums = answer, *best = sums + queries * RecallJob::kSums + 1;
  const uint32_t *estimate = best + scan.count, *share = estimate + queries * told;
  const auto found = static_cast<size_t>(best[-1]);
  std::vector<size_t> from;  // places of `rows`
  scan.rows.clear();
  for (size_t f = 0, h = 0; f < found || h < scan.held.size();) {
    const int32_t next = f < found ? static_cast<int32_t>(best[f]) : INT32_MAX;
    const bool is_held = h < scan.held.size() && scan.held[h] < next;
    if (!is_held && h < scan.held.size() && scan.held[h] == next) ++h;
    scan.rows.push_back(is_held ? scan.held[h] : next);
    from.push_back(is_held ? scan.count + h++ : f++);
  }
  scan.estimate.clear();
  scan.share.clear();
  scan.rest.clear();
  scan.sum.clear();
  scan.all.clear();
  for (size_t i = 0; i < queries; ++i) {
    for (const size_t place : from) {
      scan.estimate.push_back(std::bit_cast<float>(estimate[i * told + place]));
      scan.share.push_back(std::bit_cast<float>(share[i * told + place]));
    }
    const auto sum = [&](size_t which) { return std::bit_cast<float>(sums[i * RecallJob::kSums + which]); };
    scan.sum.push_back(sum(RecallJob::kCandidates));
    scan.all.push_back(sum(RecallJob::kAll));
    scan.rest.push_back(sum(RecallJob::kRest));
  }
}

}  // namespace

void CudaBackend::ScanIndexes(absl::Span<IndexScan* const> scans) {
  MutexLock lock(&mutex_);
  for (const IndexScan* scan : scans) DeviceIndex::Of(device_.get(), &index_room_, scan->index).Reserve(scan->index);
  std::vector<IndexScan*> some;
  size_t scratch = 0;
  // A launch's jobs stay where they are; within a step they do anyway.
  const bool hold = !uploads_.holding();
  const auto scan_some = [&] {
    if (some.empty()) return;
    if (hold) {
      Wait();
      uploads_.Hold();
    }
    ScanSome(some, scratch);
    if (hold) uploads_.Release();
    some.clear();
    scratch = 0;
  };
  for (IndexScan* scan : scans) {
    scan->done = DeviceIndex::Of(device_.get(), &index_room_, scan->index).Fits(scan->index);
    if (!scan->done) continue;
    if (scratch + ScratchOf(*scan) > kMostScratch) scan_some();
    some.push_back(scan);
    scratch += ScratchOf(*scan);
  }
  scan_some();
}

void CudaBackend::ScanSome(absl::Span<IndexScan* const> scans, size_t scratch) {
  size_t words = 0;
  for (const IndexScan* scan : scans) words += AnswerOf(*scan);
  float* scores = scan_scores_.Get<float>(scratch / sizeof(float));
  auto* answer = scan_answer_.Get<uint32_t>(words);
  std::vector<RecallJob> jobs;
  int32_t most_parts = 0, most_queries = 0;
  for (const IndexScan* scan : scans) {
    const IndexCodes& index = scan->index;
    DeviceIndex& on_device = DeviceIndex::Of(device_.get(), &index_room_, index);
    on_device.Tell(index, host_index_);
    RecallJob& job = jobs.emplace_back();
    job.codes = on_device.codes(index.head);
    job.tables = on_device.tables(index.head);
    job.queries = static_cast<int32_t>(scan->queries.size());
    job.positions = scan->positions;
    job.coded = std::min(scan->positions, index.rows());
    std::vector<RecallPart> parts;
    for (size_t s = 0; s < index.segments.size(); ++s) {
      const bool last = s + 1 == index.segments.size();
      const int32_t end =
          CeilDiv(std::min(job.coded, last ? job.coded : index.segments[s + 1].first_row), kProductTileRows);
      for (int32_t tile = index.segments[s].first_row / kProductTileRows; tile < end; tile += ScanCodes::kTiles) {
        parts.push_back({static_cast<int32_t>(s), tile, std::min<int32_t>(ScanCodes::kTiles, end - tile)});
      }
    }
    if (job.coded < job.positions) parts.push_back({.segment = -1});
    job.part_count = static_cast<int32_t>(parts.size());
    job.parts = uploads_.Upload(absl::MakeConstSpan(parts));
    std::vector<float> q;
    for (const float* query : scan->queries) q.insert(q.end(), query, query + index.shape.head_dim);
    job.q = uploads_.Upload(absl::MakeConstSpan(q));
    job.exact = uploads_.Upload(absl::MakeConstSpan(scan->exact));
    job.candidates = uploads_.Upload(absl::MakeConstSpan(scan->candidates));
    job.held = uploads_.Upload(absl::MakeConstSpan(scan->held));
    job.held_count = static_cast<int32_t>(scan->held.size());
    job.count = scan->count;
    job.estimate = std::exchange(scores, scores + static_cast<size_t>(job.queries) * job.positions);
    job.rank = reinterpret_cast<uint32_t*>(std::exchange(scores, scores + job.positions));
    const size_t told = static_cast<size_t>(job.queries) * (scan->count + scan->held.size());
    job.sums = reinterpret_cast<float*>(std::exchange(answer, answer + job.queries * RecallJob::kSums));
    job.found = reinterpret_cast<int32_t*>(std::exchange(answer, answer + 1 + scan->count));
    job.row_estimate = reinterpret_cast<float*>(std::exchange(answer, answer + told));
    job.row_share = reinterpret_cast<float*>(std::exchange(answer, answer + told));
    most_parts = std::max(most_parts, job.part_count);
    most_queries = std::max(most_queries, job.queries);
  }
  const RecallJob* on_device = uploads_.Upload(absl::MakeConstSpan(jobs));
  const auto count = static_cast<int>(jobs.size());
  const float scale = 1.44269504f / std::sqrt(static_cast<float>(layout_.head_dim));
  device_->Launch<ScanCodes>({most_parts, CeilDiv(most_queries, ScanCodes::kQueries), count},
                             {on_device, layout_.head_dim});
  device_->Launch<SumShares>({most_queries, count}, {on_device, scale});
  device_->Launch<FindBestRows>({count}, {on_device, scale});
  auto* host = host_answer_.Get<uint32_t>(words);
  device_->CopyToHost(host, scan_answer_.As<uint32_t>(), words * sizeof(uint32_t));
  Wait();
  for (IndexScan* scan : scans) {
    TakeAnswer(host, *scan);
    host += AnswerOf(*scan);
  }
}

}  // namespace tidepool::cuda
