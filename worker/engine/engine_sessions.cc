// How turns of sessions become durable, and how sessions are forgotten.
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "worker/engine/context_codec.h"
#include "worker/engine/engine_loop.h"

namespace tidepool {

// A session is answered as finished when its manifest is durable, which needs its blocks to be acknowledged on disk
// first.
void EngineLoop::StoreFinished() {
  for (std::unique_ptr<Generation>& generation : active_) {
    if (generation->phase != Generation::Phase::kStoring || generation->storing_manifest) continue;
    Context& context = *generation->context();
    if (context.log().pending() > 0) continue;
    if (context.log().failed_blocks() > 0) {  // costs time, not the session: its tokens are computed again
      TP_LOG(Warning, "engine", "session ", context.options().session_id, ": ", context.log().failed_blocks(),
             " blocks were not stored: ", context.log().first_failure().message());
    }
    generation->storing_manifest = true;
    auto manifest = std::make_shared<SessionManifest>(ContextCodec::Save(context));
    manifest->tenant = context.options().tenant;
    manifest->model_fingerprint = backend_->layout().model_fingerprint;
    manifest->revision = context.revision + 1;
    writer_->Run([this, id = generation->id(), manifest] {
      const absl::Status status = manifests_->Put(*manifest, absl::Now() + options_.cache_deadline);
      Post([this, id, status, manifest] {
        Generation* stored = Find(id);
        if (stored == nullptr) return;
        if (status.ok()) stored->context()->revision = manifest->revision;
        Close(*stored, status, *stored->finish_reason);
      });
    });
  }
}

void EngineLoop::EndSession(SessionName session, std::function<void(absl::Status)> done) {
  if (session.id.empty()) return done(absl::InvalidArgumentError("session_id: is empty"));
  if (absl::Status valid = ValidateSessionId(session.id); !valid.ok()) return done(std::move(valid));
  if (manifests_ == nullptr) {
    return done(absl::FailedPreconditionError("session_id: this worker has no cache service (start it with --cache)"));
  }
  if (session.tenant.empty()) session.tenant = options_.tenant;
  absl::Status refused;
  {
    MutexLock lock(&mutex_);
    if (stop_) {
      refused = absl::UnavailableError("the worker is shutting down");
    } else if (ends_under_way_ >= kMaxQueuedRequests) {
      refused = absl::ResourceExhaustedError(
          absl::StrCat("queue: ", ends_under_way_, " sessions are being ended, at most ", kMaxQueuedRequests));
    } else {
      ++ends_under_way_;
      posted_.push_back([this, session = std::move(session), done = std::move(done)]() mutable {
        session_ends_.push_back({std::move(session), std::move(done)});
      });
      woken_ = true;
      wake_.Signal();
      return;
    }
  }
  done(std::move(refused));
}

void EngineLoop::EndSessions() {
  for (auto at = session_ends_.begin(); at != session_ends_.end();) {
    if (busy_sessions_.contains(at->session)) {
      ++at;
      continue;
    }
    SessionEnd end = std::move(*at);
    at = session_ends_.erase(at);
    idle_.remove_if(
        [&end](const std::unique_ptr<Context>& context) { return context->options().session() == end.session; });
    PublishStats();  // who learns of the end finds the pages free
    busy_sessions_.insert(end.session);
    writer_->Run([this, end = std::move(end)] {
      const absl::Status status =
          manifests_->Delete(end.session.tenant, end.session.id, absl::Now() + options_.cache_deadline);
      {
        MutexLock lock(&mutex_);
        --ends_under_way_;
      }
      Post([this, session = end.session] { busy_sessions_.erase(session); });
      end.done(status);
    });
  }
}

}  // namespace tidepool
