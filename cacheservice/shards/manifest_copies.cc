#include "cacheservice/shards/manifest_copies.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "cacheservice/shards/ask_pods.h"

namespace tidepool {
namespace {

constexpr absl::Duration kGrace = absl::Milliseconds(300);  // for the one pod that may as well be away
constexpr absl::Duration kRepairPatience = absl::Seconds(20);
constexpr absl::Duration kCatchUpPatience = absl::Seconds(2);  // for one deletion

// Another pod may do what this one did not.
bool MayGoElsewhere(const absl::Status& status) {
  return !status.ok() && !absl::IsAborted(status) && !absl::IsInvalidArgument(status);
}

absl::Status CallPod(Pod& pod, absl::FunctionRef<absl::Status(RemoteCache&)> call) {
  absl::Status status = absl::UnavailableError("the connections to the cache service are being closed");
  pod.Use([&](RemoteCache& cache) { status = call(cache); });
  pod.Report(status);
  return status;
}

// The pods of a session, best first. Slow start is for blocks: manifests are few, and all workers should agree on the
// first pod.
PodChoices PodsOf(std::string_view tenant, std::string_view session_id, const Placement& placement) {
  std::vector<PodShare> shares = placement.shares;
  for (PodShare& share : shares) share.weight = 1;
  return PodsToWrite(SessionPlace(tenant, session_id), shares);
}

absl::Status NobodyThere() {
  return absl::UnavailableError("cache service: no pod that takes anything can be reached");
}

}  // namespace

ManifestCopies::Holdings ManifestCopies::Ask(const Placement& placement, const std::string& tenant,
                                             const std::string& session_id, absl::Time deadline) {
  const size_t spare = static_cast<size_t>(std::max(0, kCopies - 1 - placement.unheard()));
  const auto answers =
      AskPods<std::optional<int64_t>>(placement.pods, {.deadline = deadline, .stragglers = spare, .grace = kGrace},
                                      [tenant, session_id, deadline](size_t, RemoteCache& cache) {
                                        return cache.Revision(tenant, session_id, deadline);
                                      });
  Holdings holdings;
  int unheard = placement.unheard(), heard = 0;
  for (const absl::StatusOr<std::optional<int64_t>>& answer : answers) {
    holdings.revisions.push_back(answer.ok() ? answer->value_or(0) : -1);
    holdings.newest = std::max(holdings.newest, holdings.revisions.back());
    ++(answer.ok() ? heard : unheard);
  }
  if (heard > 0 && unheard < kCopies) return holdings;
  // One of the two to which it belongs has heard of every turn, as long as it was there.
  std::vector<PodShare> known = placement.shares;
  for (PodShare& share : known) share.weight = 1;
  for (const uint64_t seed : placement.away) known.push_back({.seed = seed});
  const PodChoices best = PodsToRead(SessionPlace(tenant, session_id), known, kCopies);
  for (int i = 0; i < std::min(best.count, kCopies); ++i) {
    const size_t pod = best.pods[i];
    if (pod < holdings.revisions.size() && holdings.revisions[pod] >= 0) return holdings;
  }
  holdings.uncertain = absl::UnavailableError(absl::StrCat("session '", session_id, "': ", unheard, " of ",
                                                           placement.pods.size() + placement.unheard(),
                                                           " pods of the cache service cannot be asked for it"));
  return holdings;
}

absl::Status ManifestCopies::PutFirst(const Placement& placement, size_t pod, const SessionManifest& manifest,
                                      absl::Time deadline) {
  Pod& first = *placement.pods[pod];
  const absl::Status put = CallPod(first, [&](RemoteCache& cache) { return cache.Put(manifest, deadline); });
  if (!absl::IsAborted(put)) return put;
  // Either another worker was faster, or this pod has missed turns. Who has the turn before is asked.
  const Holdings holdings = Ask(placement, manifest.tenant, manifest.session_id, deadline);
  if (holdings.newest != manifest.revision - 1 || holdings.revisions[pod] == holdings.newest) {
    // Unless it is this very turn, whose answer was lost: then the copy changes nothing.
    if (holdings.newest != manifest.revision || holdings.revisions[pod] != manifest.revision) return put;
  }
  return CallPod(first, [&](RemoteCache& cache) { return cache.PutCopy(manifest, deadline); });
}

absl::Status ManifestCopies::Put(const SessionManifest& manifest, absl::Time deadline) {
  const std::shared_ptr<const Placement> placement = pods_->placement();
  const PodChoices choices = PodsOf(manifest.tenant, manifest.session_id, *placement);
  absl::Status status = NobodyThere();
  int copies = 0;
  for (int i = 0; i < choices.count && copies < kCopies; ++i) {
    const size_t pod = choices.pods[i];
    if (copies == 0) {
      status = PutFirst(*placement, pod, manifest, deadline);
    } else {
      status = CallPod(*placement->pods[pod], [&](RemoteCache& cache) { return cache.PutCopy(manifest, deadline); });
    }
    if (status.ok()) {
      ++copies;
    } else if (!MayGoElsewhere(status)) {
      return status;
    } else {
      TP_LOG(Warning, "cache", "session ", manifest.session_id, ": its manifest goes to another pod than ",
             placement->pods[pod]->address(), ": ", status.message());
    }
  }
  if (copies == 0) return status;
  if (copies < kCopies) degraded_.fetch_add(1);
  return absl::OkStatus();
}

absl::Status ManifestCopies::CopyIn(const SessionManifest& manifest, absl::Time deadline) {
  const std::shared_ptr<const Placement> placement = pods_->placement();
  const PodChoices choices = PodsOf(manifest.tenant, manifest.session_id, *placement);
  absl::Status failure = NobodyThere();
  int copies = 0;
  for (int i = 0; i < choices.count && copies < kCopies; ++i) {
    const absl::Status status = CallPod(*placement->pods[choices.pods[i]],
                                        [&](RemoteCache& cache) { return cache.PutCopy(manifest, deadline); });
    // Aborted: a later turn is there.
    if (status.ok() || absl::IsAborted(status)) {
      ++copies;
    } else {
      failure = status;
    }
  }
  if (copies == 0) return failure;
  if (copies < kCopies) degraded_.fetch_add(1);
  return absl::OkStatus();
}

absl::StatusOr<std::optional<SessionManifest>> ManifestCopies::Get(std::string_view tenant, std::string_view session_id,
                                                                   absl::Time deadline) {
  const std::shared_ptr<const Placement> placement = pods_->placement();
  if (placement->pods.empty()) return absl::UnavailableError("cache service: no pod can be reached");
  const Holdings holdings = Ask(*placement, std::string(tenant), std::string(session_id), deadline);
  TP_RETURN_IF_ERROR(holdings.uncertain);
  if (holdings.newest == 0) return std::nullopt;
  absl::Status failure;
  for (size_t pod = 0; pod < placement->pods.size(); ++pod) {
    if (holdings.revisions[pod] != holdings.newest) continue;
    absl::StatusOr<std::optional<SessionManifest>> manifest = std::nullopt;
    const absl::Status called = CallPod(*placement->pods[pod], [&](RemoteCache& cache) {
      manifest = cache.Get(tenant, session_id, deadline);
      return manifest.status();
    });
    if (!called.ok()) {
      failure = called;
    } else if (manifest->has_value() && (*manifest)->revision >= holdings.newest) {
      Repair(placement, **manifest, holdings);
      return manifest;
    }
  }
  // Deleted meanwhile, unless a pod says else.
  TP_RETURN_IF_ERROR(failure);
  return std::nullopt;
}

void ManifestCopies::Repair(const std::shared_ptr<const Placement>& placement, const SessionManifest& manifest,
                            const Holdings& holdings) {
  const int64_t copies = std::count(holdings.revisions.begin(), holdings.revisions.end(), manifest.revision);
  const PodChoices choices = PodsOf(manifest.tenant, manifest.session_id, *placement);
  // A pod that has an old turn is brought up to date also when there are copies enough: it may be all that is left one
  // day.
  for (int i = 0, wanted = kCopies; i < choices.count && wanted > 0; ++i) {
    const size_t pod = choices.pods[i];
    const int64_t revision = holdings.revisions[pod];
    if (revision == manifest.revision) --wanted;
    const bool lacks = revision >= 0 && revision < manifest.revision && (revision > 0 || copies < kCopies);
    if (!lacks) continue;
    --wanted;
    if (repairs_.fetch_add(1) >= kMostRepairs) {
      repairs_.fetch_sub(1);
      return;
    }
    const bool runs = placement->pods[pod]->Run([this, manifest](RemoteCache* cache) {
      if (cache != nullptr && cache->PutCopy(manifest, absl::Now() + kRepairPatience).ok()) repaired_.fetch_add(1);
      repairs_.fetch_sub(1);
    });
    if (!runs) repairs_.fetch_sub(1);
  }
}

absl::Status ManifestCopies::Delete(std::string_view tenant, std::string_view session_id, absl::Time deadline) {
  const std::shared_ptr<const Placement> placement = pods_->placement();
  if (placement->pods.empty()) return absl::UnavailableError("cache service: no pod can be reached");
  const Session session(tenant, session_id);
  const auto answers = AskPods<bool>(placement->pods, {.deadline = deadline},
                                     [session, deadline](size_t, RemoteCache& cache) -> absl::StatusOr<bool> {
                                       TP_RETURN_IF_ERROR(cache.Delete(session.first, session.second, deadline));
                                       return true;
                                     });
  bool any = false;
  std::vector<uint32_t> done;
  for (size_t i = 0; i < answers.size(); ++i) {
    if (answers[i].ok()) done.push_back(placement->pods[i]->id());
    any = any || answers[i].ok();
    if (!answers[i].ok() && !MayGoElsewhere(answers[i].status())) return answers[i].status();
  }
  if (!any) return answers.front().status();
  const std::vector<std::shared_ptr<Pod>> all = pods_->all();
  MutexLock lock(&mutex_);
  std::erase_if(forgotten_, [&all](const auto& entry) {
    return std::none_of(all.begin(), all.end(), [&entry](const auto& pod) { return pod->id() == entry.first; });
  });
  for (const std::shared_ptr<Pod>& pod : all) {
    if (std::find(done.begin(), done.end(), pod->id()) != done.end()) continue;
    std::deque<Session>& missed = forgotten_[pod->id()];
    if (missed.size() >= kMostForgotten) missed.pop_front();
    missed.push_back(session);
  }
  return absl::OkStatus();
}

absl::Status ManifestCopies::CatchUp(uint32_t pod, RemoteCache& cache) {
  for (;;) {
    Session session;
    {
      MutexLock lock(&mutex_);
      const auto at = forgotten_.find(pod);
      if (at == forgotten_.end()) return absl::OkStatus();
      if (at->second.empty()) {
        forgotten_.erase(at);
        return absl::OkStatus();
      }
      session = at->second.front();
    }
    TP_RETURN_IF_ERROR(cache.Delete(session.first, session.second, absl::Now() + kCatchUpPatience));
    MutexLock lock(&mutex_);
    if (const auto at = forgotten_.find(pod);
        at != forgotten_.end() && !at->second.empty() && at->second.front() == session) {
      at->second.pop_front();
    }
  }
}

}  // namespace tidepool
