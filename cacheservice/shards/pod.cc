#include "cacheservice/shards/pod.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/time/clock.h"
#include "base/check.h"
#include "base/log.h"
#include "cacheservice/remote/backoff.h"

namespace tidepool {
namespace {

constexpr int kCallThreads = 4;                          // for blocking calls to one pod
constexpr std::chrono::milliseconds kBetweenProbes{50};  // at least, however many calls fail

bool IsFailure(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) || absl::IsCancelled(status);
}

}  // namespace

Pod::Pod(uint32_t id, RemoteCacheOptions remote, const PodTiming& timing, bool joined_later, Hooks hooks)
    : id_(id),
      address_(remote.endpoint),
      timing_(timing),
      hooks_(std::move(hooks)),
      health_(timing.most_failures, timing.slow_start, joined_later),
      name_(address_),
      cache_(*RemoteCache::Connect(std::move(remote))),
      calls_(std::make_unique<Background>(kCallThreads)),
      monitor_([this] { Monitor(); }) {}

Pod::~Pod() { TIDEPOOL_CHECK(cache_ == nullptr); }

void Pod::Stop() {
  {
    MutexLock lock(&mutex_);
    stop_ = true;
    changed_.SignalAll();
  }
  if (monitor_.joinable()) monitor_.join();
  cache_->Interrupt();
  {
    MutexLock lock(&mutex_);
    while (users_ > 0) changed_.Wait(&mutex_);
  }
  calls_.reset();  // jobs that wait still learn that the pod is stopped
  cache_.reset();
}

Pod::View Pod::view() const {
  MutexLock lock(&mutex_);
  return {.name = name_,
          .reached = reached_,
          .state = health_.state(),
          .weight = health_.Weight(absl::Now()),
          .draining = draining_,
          .leaving = leaving_};
}

void Pod::SetLeaving(bool leaving) {
  MutexLock lock(&mutex_);
  leaving_ = leaving;
}

bool Pod::Use(absl::FunctionRef<void(RemoteCache&)> use) {
  {
    MutexLock lock(&mutex_);
    if (stop_) return false;
    ++users_;
  }
  use(*cache_);
  MutexLock lock(&mutex_);
  if (--users_ == 0 && stop_) changed_.SignalAll();
  return true;
}

bool Pod::Run(std::function<void(RemoteCache*)> job) {
  // As a user: the threads must not end meanwhile.
  return Use([&](RemoteCache&) {
    calls_->Run([this, job = std::move(job)] {
      if (!Use([&job](RemoteCache& cache) { job(&cache); })) job(nullptr);
    });
  });
}

void Pod::Report(const absl::Status& status) {
  if (!IsFailure(status)) return;
  failed_calls_.fetch_add(1);
  MutexLock lock(&mutex_);
  suspect_ = true;
  changed_.SignalAll();
}

bool Pod::ProbeOnce() {
  const absl::StatusOr<PodIdentity> identity = cache_->Probe(absl::Now() + timing_.probe_timeout);
  absl::Status status = identity.status();
  bool away = false;
  {
    MutexLock lock(&mutex_);
    away = health_.state() != PodHealth::State::kUp;
  }
  // What fails here fails again at the next probe; one that is in use stays so.
  if (status.ok()) {
    const absl::Status caught_up = hooks_.on_answer(*cache_);
    if (away) status = caught_up;
  }
  bool changed = false, given_up = false, starting = false;
  {
    MutexLock lock(&mutex_);
    if (status.ok()) {
      changed = health_.Success(absl::Now());
      changed = changed || name_ != identity->name || draining_ != identity->draining;
      name_ = identity->name;
      draining_ = identity->draining;
      reached_ = true;
      starting = told_weight_ < 1;
      told_weight_ = health_.Weight(absl::Now());
    } else {
      changed = given_up = health_.Failure();
    }
  }
  if (changed) {
    if (status.ok()) {
      TP_LOG(Info, "cache", "pod ", identity->name, " at ", address_, identity->draining ? " is draining" : " answers");
    } else {
      TP_LOG(Warning, "cache", "pod at ", address_, " is left out: ", status.message());
    }
  }
  // First nobody else is sent there, then what is under way fails and goes elsewhere.
  if (status.ok() && away) cache_->Resume();
  if (changed || starting) hooks_.on_change();
  if (given_up) cache_->Interrupt();
  return status.ok();
}

void Pod::Monitor() {
  Backoff backoff;
  for (;;) {
    {
      MutexLock lock(&mutex_);
      if (stop_) return;
      suspect_ = false;
    }
    const auto began = std::chrono::steady_clock::now();
    const bool answers = ProbeOnce();
    if (answers) backoff.Reset();
    const auto pause = answers ? absl::ToChronoMilliseconds(timing_.probe_interval) : backoff.Next();
    MutexLock lock(&mutex_);
    while (!stop_) {
      // Calls that fail are no news of a pod that does not answer.
      const auto until =
          began + (answers && suspect_ ? std::min<std::chrono::milliseconds>(pause, kBetweenProbes) : pause);
      if (std::chrono::steady_clock::now() >= until) break;
      changed_.WaitUntil(&mutex_, until);
    }
  }
}

CachePodStats Pod::Stats() {
  CachePodStats stats;
  stats.address = address_;
  const View now = view();
  stats.name = now.name;
  stats.weight = now.draining || now.leaving ? 0 : now.weight;
  using State = CachePodStats::State;
  switch (now.state) {
    case PodHealth::State::kConnecting: stats.state = State::kConnecting; break;
    case PodHealth::State::kDown: stats.state = State::kDown; break;
    case PodHealth::State::kUp:
      stats.state = now.draining     ? State::kDraining
                    : now.leaving    ? State::kLeaving
                    : now.weight < 1 ? State::kSlowStart
                                     : State::kUp;
  }
  Use([&stats](RemoteCache& cache) {
    const BlockCacheStats from = cache.Stats();
    stats.offloaded_blocks = from.offloaded_blocks;
    stats.offloaded_bytes = from.offloaded_bytes;
    stats.recalled_rows = from.recalled_rows;
    stats.recalled_bytes = from.recalled_bytes;
    stats.fetched_bytes = from.fetched_bytes;
    stats.refetched_blocks = from.refetched_blocks;
    stats.resent_blocks = from.resent_blocks;
    stats.reconnects = from.reconnects;
  });
  stats.failed_calls = failed_calls_;
  stats.failed_rows = failed_rows_;
  stats.moved_blocks = moved_blocks_;
  MutexLock lock(&mutex_);
  stats.downs = health_.downs();
  return stats;
}

}  // namespace tidepool
