#include "cacheservice/shards/pod_set.h"

#include <algorithm>
#include <chrono>
#include <set>
#include <utility>

#include "absl/time/clock.h"
#include "base/log.h"

namespace tidepool {
namespace {

// A stream that broke while the pod lives is back by then; where it does not, requests fail when the pod is given up.
constexpr absl::Duration kRecallPatience = absl::Seconds(2);
constexpr std::chrono::milliseconds kBetweenResolves{500};  // at least, however many pods fail

}  // namespace

int Placement::IndexOf(uint32_t id) const {
  for (size_t i = 0; i < pods.size(); ++i) {
    if (pods[i]->id() == id) return static_cast<int>(i);
  }
  return -1;
}

PodSet::PodSet(PodSetOptions options, OnAnswer on_answer)
    : options_(std::move(options)), on_answer_(std::move(on_answer)), placement_(std::make_shared<Placement>()) {
  if (options_.list.from_dns() || options_.resolve) {
    resolver_ = std::thread([this] { Resolve(); });
  } else {
    Adopt(options_.list.addresses);
  }
}

PodSet::~PodSet() { Stop(); }

void PodSet::Stop() {
  if (stopping_.exchange(true)) return;
  {
    MutexLock lock(&mutex_);
    changed_.SignalAll();
  }
  if (resolver_.joinable()) resolver_.join();
  for (const std::shared_ptr<Pod>& pod : all()) pod->Stop();
}

std::shared_ptr<const Placement> PodSet::placement() const {
  MutexLock lock(&mutex_);
  return placement_;
}

std::vector<std::shared_ptr<Pod>> PodSet::all() const {
  MutexLock lock(&mutex_);
  return pods_;
}

void PodSet::WaitUntilKnown(absl::Time deadline) {
  const auto until = std::chrono::steady_clock::now() + absl::ToChronoMilliseconds(deadline - absl::Now());
  MutexLock lock(&mutex_);
  for (;;) {
    if (known_ || stopping() || !changed_.WaitUntil(&mutex_, until)) return;
  }
}

std::shared_ptr<Pod> PodSet::MakePod(std::string address, bool joined_later) {
  RemoteCacheOptions remote = options_.remote;
  remote.endpoint = std::move(address);
  remote.wait_for_service = false;  // another pod is asked instead
  remote.recall_patience = kRecallPatience;
  const uint32_t id = next_id_++;
  return std::make_shared<Pod>(
      id, std::move(remote), options_.timing, joined_later,
      Pod::Hooks{.on_change = [this] { Rebuild(); },
                 .on_answer = [this, id](RemoteCache& cache) { return on_answer_(id, cache); }});
}

void PodSet::Rebuild() {
  MutexLock lock(&mutex_);
  auto next = std::make_shared<Placement>();
  std::set<std::string> names;
  std::vector<std::pair<std::shared_ptr<Pod>, Pod::View>> away;
  known_ = resolved_;
  for (const std::shared_ptr<Pod>& pod : pods_) {
    Pod::View view = pod->view();
    known_ = known_ && view.state != PodHealth::State::kConnecting;
    if (view.reached && view.name == options_.own_name) continue;
    if (view.state != PodHealth::State::kUp) {
      away.emplace_back(pod, std::move(view));
    } else if (names.insert(view.name).second) {  // else another address of the same pod
      next->pods.push_back(pod);
      next->shares.push_back(
          {.seed = PodSeed(view.name), .weight = view.weight, .takes_new = !view.draining && !view.leaving});
    }
  }
  for (const auto& [pod, view] : away) {
    if (!view.reached) {
      ++next->unknown;
    } else if (names.insert(view.name).second) {
      next->away.push_back(PodSeed(view.name));
      resolve_now_ = true;
    }
  }
  placement_ = std::move(next);
  changed_.SignalAll();
}

void PodSet::Adopt(const std::vector<std::string>& addresses) {
  {
    MutexLock lock(&mutex_);
    for (const std::shared_ptr<Pod>& pod : pods_) {
      pod->SetLeaving(std::find(addresses.begin(), addresses.end(), pod->address()) == addresses.end());
    }
    for (const std::string& address : addresses) {
      const bool there =
          std::any_of(pods_.begin(), pods_.end(), [&](const auto& pod) { return pod->address() == address; });
      if (there || pods_.size() >= kMostPods) continue;
      pods_.push_back(MakePod(address, /*joined_later=*/resolved_));
      if (resolved_) TP_LOG(Info, "cache", "pod at ", address, " has joined");
    }
    resolved_ = true;
  }
  Rebuild();
}

void PodSet::Retire() {
  std::vector<std::shared_ptr<Pod>> gone;
  {
    MutexLock lock(&mutex_);
    std::erase_if(pods_, [&](const std::shared_ptr<Pod>& pod) {
      const Pod::View view = pod->view();
      if (!view.leaving || view.state == PodHealth::State::kUp) return false;
      gone.push_back(pod);
      return true;
    });
  }
  if (gone.empty()) return;
  Rebuild();
  for (const std::shared_ptr<Pod>& pod : gone) {
    TP_LOG(Info, "cache", "pod at ", pod->address(), " has left");
    pod->Stop();
  }
}

void PodSet::Resolve() {
  while (!stopping()) {
    const auto began = std::chrono::steady_clock::now();
    const absl::StatusOr<std::vector<std::string>> addresses =
        options_.resolve ? options_.resolve() : ResolvePods(options_.list);
    // An empty answer is no news: the name server, not the service, is more likely to be away.
    if (addresses.ok() && !addresses->empty()) {
      Adopt(*addresses);
      Retire();
    } else {
      TP_LOG(Warning, "cache",
             "the pods cannot be resolved: ", addresses.ok() ? "no address" : addresses.status().message());
    }
    MutexLock lock(&mutex_);
    const bool known = resolved_;
    resolve_now_ = false;
    while (!stopping()) {
      const bool soon = resolve_now_ || !known;
      const auto until = began + (soon ? kBetweenResolves : absl::ToChronoMilliseconds(options_.resolve_interval));
      if (std::chrono::steady_clock::now() >= until) break;
      changed_.WaitUntil(&mutex_, until);
    }
  }
}

}  // namespace tidepool
