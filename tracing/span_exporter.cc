#include "tracing/span_exporter.h"

#include <algorithm>
#include <chrono>

#include "base/log.h"

namespace tidepool {
namespace {

constexpr size_t kMaxBatchTraces = 64;
constexpr std::chrono::milliseconds kGather{200};  // traces that end soon after another go with it
constexpr std::chrono::seconds kPause{1};          // between tries
constexpr int kTries = 3;
constexpr absl::Duration kTimeout = absl::Seconds(5), kLastTimeout = absl::Seconds(2);

}  // namespace

SpanExporter::SpanExporter(OtlpEndpoint endpoint, std::vector<std::pair<std::string, std::string>> resource)
    : endpoint_(std::move(endpoint)), resource_(std::move(resource)), thread_([this] { Work(); }) {}

SpanExporter::~SpanExporter() {
  {
    MutexLock lock(&mutex_);
    stop_ = true;
    changed_.SignalAll();
  }
  thread_.join();
}

void SpanExporter::Export(std::function<std::vector<Span>()> make) {
  MutexLock lock(&mutex_);
  if (queue_.size() >= kMaxQueuedTraces) {
    ++stats_.dropped;
    return;
  }
  queue_.push_back(std::move(make));
  changed_.SignalAll();
}

SpanExporterStats SpanExporter::Stats() const {
  MutexLock lock(&mutex_);
  return stats_;
}

void SpanExporter::Work() {
  for (;;) {
    const std::vector<std::function<std::vector<Span>()>> batch = NextBatch();
    if (batch.empty()) return;
    std::vector<Span> spans;
    for (const auto& make : batch) {
      for (Span& span : make()) spans.push_back(std::move(span));
    }
    const bool sent = Send(OtlpJson(spans, resource_));
    MutexLock lock(&mutex_);
    (sent ? stats_.exported : stats_.dropped) += static_cast<int64_t>(batch.size());
  }
}

std::vector<std::function<std::vector<Span>()>> SpanExporter::NextBatch() {
  MutexLock lock(&mutex_);
  while (queue_.empty() && !stop_) changed_.Wait(&mutex_);
  const auto until = std::chrono::steady_clock::now() + kGather;
  while (!stop_ && queue_.size() < kMaxBatchTraces && changed_.WaitUntil(&mutex_, until)) {
  }
  const size_t count = stop_ ? queue_.size() : std::min(queue_.size(), kMaxBatchTraces);
  std::vector<std::function<std::vector<Span>()>> batch;
  for (size_t i = 0; i < count; ++i) {
    batch.push_back(std::move(queue_.front()));
    queue_.pop_front();
  }
  return batch;
}

bool SpanExporter::Send(const std::string& body) {
  for (int attempt = 1;; ++attempt) {
    bool last = attempt == kTries;
    {
      MutexLock lock(&mutex_);
      last = last || stop_;
    }
    const absl::Status status = PostJson(endpoint_, body, last ? kLastTimeout : kTimeout);
    if (failing_ == status.ok()) {
      failing_ = !status.ok();
      if (status.ok()) {
        TP_LOG(Info, "tracing", "the collector takes spans again");
      } else {
        TP_LOG(Warning, "tracing", "the collector at ", endpoint_.host, ":", endpoint_.port, " ", status.message());
      }
    }
    if (status.ok()) return true;
    if (last) return false;
    MutexLock lock(&mutex_);
    const auto again = std::chrono::steady_clock::now() + kPause;
    while (!stop_ && changed_.WaitUntil(&mutex_, again)) {
    }
  }
}

}  // namespace tidepool
