#include "cacheservice/shards/sharded_offload.h"

#include <algorithm>
#include <utility>

namespace tidepool {
namespace {

constexpr size_t kMostTries = 4;  // pods that one block is offered to

// The pod, not the value, is the reason.
bool MayGoElsewhere(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) || absl::IsResourceExhausted(status) ||
         absl::IsCancelled(status);
}

}  // namespace

ShardedOffload::ShardedOffload(Service service, int copies, BlockId id, size_t bytes, OffloadOptions options,
                               std::function<void(absl::Status)> done)
    : service_(service),
      copies_(copies),
      id_(id),
      bytes_(bytes),
      options_(options),
      done_(std::move(done)),
      left_(copies) {}

void ShardedOffload::Start(Service service, int copies, BlockId id, std::string value, OffloadOptions options,
                           std::function<void(absl::Status)> done) {
  const std::shared_ptr<ShardedOffload> offload(
      new ShardedOffload(service, copies, id, value.size(), options, std::move(done)));
  for (int copy = 1; copy < copies; ++copy) offload->Send(value, /*again=*/false, absl::OkStatus());
  offload->Send(std::move(value), /*again=*/false, absl::OkStatus());
}

void ShardedOffload::Send(std::string value, bool again, const absl::Status& why) {
  if (service_.pods->stopping()) return End(absl::UnavailableError("the worker is shutting down"));
  const std::shared_ptr<const Placement> placement = service_.pods->placement();
  const PodChoices choices = PodsToWrite(id_.key, placement->shares);
  std::shared_ptr<Pod> pod;
  {
    MutexLock lock(&mutex_);
    for (int i = 0; i < choices.count && pod == nullptr && tried_.size() < kMostTries; ++i) {
      const std::shared_ptr<Pod>& next = placement->pods[choices.pods[i]];
      if (std::find(tried_.begin(), tried_.end(), next->id()) == tried_.end()) pod = next;
    }
    if (pod != nullptr) tried_.push_back(pod->id());
  }
  if (pod == nullptr) {
    return End(why.ok() ? absl::UnavailableError("cache service: no pod that takes blocks can be reached") : why);
  }
  auto done = [self = shared_from_this(), pod](absl::Status status, std::string returned) {
    pod->Report(status);
    if (status.ok()) {
      const std::shared_ptr<const Placement> now = self->service_.pods->placement();
      const PodChoices first = PodsToRead(self->id_.key, now->shares, self->copies_);
      if (first.count > 0 && self->copies_ == 1 && now->pods[first.pods[0]] != pod) {
        self->service_.sites->Put(self->id_.key, pod->id());
      }
      return self->End(status);
    }
    if (!MayGoElsewhere(status)) return self->End(status);
    pod->CountMovedBlock();
    // What a pod has had in its queue goes past the next one's limit: the bytes are not new. What found a queue full
    // waits for its turn again.
    self->Send(std::move(returned), /*again=*/!absl::IsResourceExhausted(status), status);
  };
  bool sent = false;
  pod->Use([&](RemoteCache& cache) {
    sent = true;
    cache.OffloadOrReturn(id_, std::move(value), options_, /*now=*/again, std::move(done));
  });
  if (!sent) End(absl::UnavailableError("the connections to the cache service are being closed"));
}

void ShardedOffload::End(const absl::Status& status) {
  absl::Status answer;
  {
    MutexLock lock(&mutex_);
    if (status.ok()) {
      ++stored_;
    } else if (failure_.ok()) {
      failure_ = status;
    }
    if (--left_ > 0) return;
    if (stored_ == 0) answer = failure_;
    if (stored_ > 0 && stored_ < copies_) service_.counters->degraded.fetch_add(1);
  }
  if (answer.ok()) {
    service_.counters->blocks.fetch_add(1);
    service_.counters->bytes.fetch_add(static_cast<int64_t>(bytes_));
  } else {
    service_.counters->failures.fetch_add(1);
  }
  done_(std::move(answer));
}

}  // namespace tidepool
