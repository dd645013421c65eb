#include "cacheservice/rpc/pod_drain.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "cacheservice/shards/sharded_cache.h"

namespace tidepool {
namespace {

constexpr absl::Duration kPeersPatience = absl::Seconds(10);    // for peers to answer at the beginning
constexpr absl::Duration kSessionPatience = absl::Seconds(60);  // for one manifest
constexpr absl::Duration kBetweenReports = absl::Milliseconds(500);
constexpr size_t kBlocksAtOnce = 16;                  // read together
constexpr int64_t kMostOnTheWay = int64_t{16} << 20;  // bytes of values
constexpr int kMostPasses = 100;                      // over what came while it was being copied

}  // namespace

struct PodDrain::Run {
  bool all_blocks = false;
  Report report;
  absl::Time reported = absl::InfinitePast();
  std::map<std::pair<std::string, std::string>, int64_t> copied_sessions;  // tenant and id -> revision
  absl::flat_hash_set<BlockId> copied_blocks;
  bool any_new = false;  // this pass has found something to copy

  Mutex mutex;
  CondVar changed;
  int64_t on_the_way_bytes ABSL_GUARDED_BY(mutex) = 0;
  Progress progress ABSL_GUARDED_BY(mutex);
  absl::Status failure ABSL_GUARDED_BY(mutex);  // the first
  std::unique_ptr<ShardedCache> peers;          // goes first: what is on its way ends here

  void Tell(bool now) {
    if (!now && absl::Now() < reported + kBetweenReports) return;
    reported = absl::Now();
    Progress state;
    {
      MutexLock lock(&mutex);
      state = progress;
    }
    report(state);
  }
};

PodDrain::~PodDrain() {
  Cancel();
  std::thread last;
  {
    MutexLock lock(&mutex_);
    last.swap(thread_);
  }
  if (last.joinable()) last.join();
}

absl::Status PodDrain::Start(bool all_blocks, Report report, std::function<void(absl::Status)> done) {
  MutexLock lock(&mutex_);
  if (running_) return absl::FailedPreconditionError("drain: another one is under way");
  if (thread_.joinable()) thread_.join();  // it has ended
  running_ = true;
  cancelled_.store(false);
  thread_ = std::thread([this, all_blocks, report = std::move(report), done = std::move(done)]() mutable {
    absl::Status status;
    {
      Run run;
      run.all_blocks = all_blocks;
      run.report = std::move(report);
      TP_LOG(Info, "cache", "drain: begins");
      const bool was_drained = context_->refuses_new.load();
      context_->draining.store(true);
      status = Drain(run);
      if (!status.ok()) {
        context_->refuses_new.store(was_drained);
        context_->draining.store(was_drained);
      }
      TP_LOG(Info, "cache", "drain: ", status.ok() ? "done, nothing new is taken any more" : status.message());
      {
        MutexLock run_lock(&run.mutex);
        run.progress.drained = status.ok();
      }
      run.Tell(/*now=*/true);
    }
    {
      MutexLock run_lock(&mutex_);
      running_ = false;
    }
    done(std::move(status));
  });
  return absl::OkStatus();
}

absl::Status PodDrain::Drain(Run& run) {
  ShardedCacheOptions options;
  options.pods = peers_;
  options.remote.any_shape = true;
  options.remote.security = security_;
  options.remote.layout.layers = 1024;  // any
  options.timing.slow_start = absl::ZeroDuration();
  options.own_name = context_->pod_name;
  TP_ASSIGN_OR_RETURN(run.peers, ShardedCache::Connect(std::move(options)));
  if (run.peers->WaitForPods(absl::Now() + kPeersPatience) == 0) {
    return absl::UnavailableError("drain: none of the --peers can be reached, or all are drained");
  }
  for (int pass = 0; pass < kMostPasses; ++pass) {
    run.any_new = false;
    TP_RETURN_IF_ERROR(CopySessions(run));
    TP_RETURN_IF_ERROR(CopyBlocks(run));
    {
      MutexLock lock(&run.mutex);
      if (!run.failure.ok()) {
        return absl::UnavailableError(absl::StrCat("drain: ", run.progress.sessions_failed, " sessions and ",
                                                   run.progress.blocks_failed,
                                                   " blocks could not be copied: ", run.failure.message()));
      }
    }
    // What was accepted before it was refused is copied by a further pass.
    const bool refused_before = context_->refuses_new.exchange(true);
    if (refused_before && !run.any_new && context_->staging_bytes.load() == 0) return absl::OkStatus();
  }
  return absl::UnavailableError("drain: what is under way does not end");
}

absl::Status PodDrain::CopySessions(Run& run) {
  std::string token;
  do {
    TP_ASSIGN_OR_RETURN(const ManifestPage page, context_->manifests->List("", 1000, token));
    token = page.next_page_token;
    for (const ManifestSummary& summary : page.sessions) {
      int64_t& copied = run.copied_sessions[{summary.tenant, summary.session_id}];
      if (copied >= summary.revision) continue;
      if (cancelled_.load()) return absl::CancelledError("drain: cancelled");
      run.any_new = true;
      const bool again = copied > 0;
      absl::StatusOr<std::optional<SessionManifest>> manifest =
          context_->manifests->Get(summary.tenant, summary.session_id, absl::InfiniteFuture());
      absl::Status status = manifest.status();
      if (status.ok() && manifest->has_value()) {
        status = run.peers->CopyManifest(**manifest, absl::Now() + kSessionPatience);
        copied = (*manifest)->revision;
      }
      {
        MutexLock lock(&run.mutex);
        run.progress.sessions += !again;
        if (status.ok()) {
          run.progress.sessions_copied += !again;
        } else {
          ++run.progress.sessions_failed;
          if (run.failure.ok()) run.failure = status;
          copied = summary.revision;  // not tried again
        }
      }
      run.Tell(/*now=*/false);
    }
  } while (!token.empty());
  return absl::OkStatus();
}

absl::Status PodDrain::CopyBlocks(Run& run) {
  std::vector<BlockId> ids = context_->blocks->Ids(run.all_blocks);
  std::erase_if(ids, [&run](const BlockId& id) { return !run.copied_blocks.insert(id).second; });
  run.any_new = run.any_new || !ids.empty();
  {
    MutexLock lock(&run.mutex);
    run.progress.blocks += static_cast<int64_t>(ids.size());
  }
  bool cancelled = false;
  for (size_t first = 0; first < ids.size() && !cancelled; first += kBlocksAtOnce) {
    const auto batch = absl::MakeConstSpan(ids).subspan(first, kBlocksAtOnce);
    TP_ASSIGN_OR_RETURN(const std::vector<BlockValue> values, context_->blocks->GetMany(batch));
    for (size_t i = 0; i < batch.size(); ++i) {
      const int64_t bytes = values[i] == nullptr ? 0 : static_cast<int64_t>(values[i]->size());
      {
        MutexLock lock(&run.mutex);
        if (values[i] == nullptr) {  // dropped meanwhile
          --run.progress.blocks;
          continue;
        }
        while (run.on_the_way_bytes > 0 && run.on_the_way_bytes + bytes > kMostOnTheWay) run.changed.Wait(&run.mutex);
        run.on_the_way_bytes += bytes;
      }
      run.peers->Offload(batch[i], *values[i],
                         {.durable = true, .parent = {}, .tenant = context_->blocks->TenantOf(batch[i])},
                         [&run, bytes](const absl::Status& status) {
                           MutexLock lock(&run.mutex);
                           run.on_the_way_bytes -= bytes;
                           if (status.ok()) {
                             ++run.progress.blocks_copied;
                             run.progress.bytes_copied += bytes;
                           } else {
                             ++run.progress.blocks_failed;
                             if (run.failure.ok()) run.failure = status;
                           }
                           run.changed.SignalAll();
                         });
    }
    run.Tell(/*now=*/false);
    cancelled = cancelled_.load();
  }
  MutexLock lock(&run.mutex);
  while (run.on_the_way_bytes > 0) run.changed.Wait(&run.mutex);
  return cancelled ? absl::CancelledError("drain: cancelled") : absl::OkStatus();
}

}  // namespace tidepool
