#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "cacheservice/rpc/cache_store_service.h"
#include "cacheservice/rpc/drain_stream.h"
#include "security/audit.h"
#include "tidepool/v1/cache_admin.grpc.pb.h"

namespace tidepool {
namespace {

void Fill(const TierStats& from, v1::StorageTierStats& to) {
  to.set_limit_bytes(from.limit_bytes);
  to.set_bytes(from.bytes);
  to.set_objects(from.objects);
  to.set_hits(from.hits);
  to.set_misses(from.misses);
  to.set_puts(from.puts);
  to.set_repeated_puts(from.repeated_puts);
  to.set_evictions(from.evictions);
  to.set_corrupt(from.corrupt);
  to.set_write_failures(from.write_failures);
}

v1::RemoteTierStats::Breaker BreakerOf(RemoteTierStats::Breaker state) {
  switch (state) {
    case RemoteTierStats::Breaker::kClosed: return v1::RemoteTierStats::BREAKER_CLOSED;
    case RemoteTierStats::Breaker::kOpen: return v1::RemoteTierStats::BREAKER_OPEN;
    case RemoteTierStats::Breaker::kHalfOpen: return v1::RemoteTierStats::BREAKER_HALF_OPEN;
  }
  return v1::RemoteTierStats::BREAKER_UNSPECIFIED;
}

void Fill(const RemoteTierStats& from, v1::RemoteTierStats& to) {
  to.set_breaker(BreakerOf(from.breaker));
  to.set_breaker_opened(from.breaker_opened);
  to.set_retry_seconds(from.retry_seconds);
  to.set_last_failure(from.last_failure);
  to.set_hits(from.hits);
  to.set_hit_bytes(from.hit_bytes);
  to.set_absent(from.absent);
  to.set_incomplete(from.incomplete);
  to.set_corrupt(from.corrupt);
  to.set_unavailable(from.unavailable);
  to.set_failed(from.failed);
  to.set_puts(from.puts);
  to.set_put_bytes(from.put_bytes);
  to.set_repeated_puts(from.repeated_puts);
  to.set_write_failures(from.write_failures);
  to.set_backlog_bytes(from.backlog_bytes);
  to.set_dropped(from.dropped);
}

void Fill(const ManifestSummary& from, v1::SessionSummary& to) {
  to.set_session_id(from.session_id);
  to.set_tokens(from.tokens);
  to.set_revision(from.revision);
  to.set_updated_unix_ms(from.updated_unix_ms);
  to.set_preset(from.preset);
  to.set_manifest_bytes(from.body_bytes);
}

class CacheAdminService final : public v1::CacheAdmin::CallbackService {
 public:
  explicit CacheAdminService(CacheContext* context) : context_(context) {}

  grpc::ServerUnaryReactor* GetStats(grpc::CallbackServerContext* call, const v1::GetStatsRequest*,
                                     v1::GetStatsResponse* response) override {
    return Run(call, [this, response](const Caller&) {
      const CacheStats stats = context_->blocks->Stats();
      Fill(stats.memory, *response->mutable_memory());
      Fill(stats.disk, *response->mutable_disk());
      if (stats.remote.enabled) Fill(stats.remote, *response->mutable_remote());
      response->set_demotions(stats.demotions);
      response->set_promotions(stats.promotions);
      response->set_dropped(stats.dropped);
      response->set_recalled_rows(stats.recalled_rows);
      response->set_recalled_bytes(stats.recalled_bytes);
      response->set_missing_rows(stats.missing_rows);
      response->set_sessions(static_cast<uint64_t>(context_->manifests->Stats().sessions));
      response->set_disk_used_bytes(stats.disk_used_bytes);
      response->set_disk_writable(stats.disk_writable);
      response->set_uptime_seconds(absl::ToDoubleSeconds(absl::Now() - context_->started));
      response->set_version(TIDEPOOL_VERSION);
      response->set_open_streams(static_cast<uint64_t>(context_->open_streams.load()));
      response->set_staging_bytes(static_cast<uint64_t>(context_->staging_bytes.load()));
      response->set_pod_name(context_->pod_name);
      response->set_draining(context_->draining.load());
      return absl::OkStatus();
    });
  }

  grpc::ServerUnaryReactor* ListSessions(grpc::CallbackServerContext* call, const v1::ListSessionsRequest* request,
                                         v1::ListSessionsResponse* response) override {
    return Run(call, [this, request, response](const Caller& caller) {
      const int size = request->page_size() == 0 ? 100 : request->page_size();
      if (size < 1 || size > 1000) {
        return absl::InvalidArgumentError(absl::StrCat("page_size: ", size, " is not in 1 to 1000, or 0 for 100"));
      }
      TP_ASSIGN_OR_RETURN(const std::string tenant, caller.TenantFor(request->tenant()));
      TP_ASSIGN_OR_RETURN(const ManifestPage page, context_->manifests->List(tenant, size, request->page_token()));
      for (const ManifestSummary& session : page.sessions) Fill(session, *response->add_sessions());
      response->set_next_page_token(page.next_page_token);
      return absl::OkStatus();
    });
  }

  grpc::ServerUnaryReactor* DescribeSession(grpc::CallbackServerContext* call,
                                            const v1::DescribeSessionRequest* request,
                                            v1::SessionDescription* response) override {
    return Run(call, [this, request, response](const Caller& caller) {
      TP_ASSIGN_OR_RETURN(const std::string tenant, caller.TenantFor(request->tenant()));
      TP_ASSIGN_OR_RETURN(const std::optional<SessionManifest> manifest,
                          context_->manifests->Get(tenant, request->session_id(), absl::InfiniteFuture()));
      if (!manifest.has_value()) return Unknown(request->session_id());
      const SessionManifest& session = *manifest;
      v1::SessionSummary& summary = *response->mutable_summary();
      summary.set_session_id(session.session_id);
      summary.set_tokens(static_cast<int64_t>(session.token_ids.size()));
      summary.set_revision(session.revision);
      summary.set_updated_unix_ms(session.updated_unix_ms);
      summary.set_preset(session.preset);
      summary.set_manifest_bytes(static_cast<int64_t>(session.engine_state.size() +
                                                      session.token_ids.size() * sizeof(int32_t) +
                                                      session.block_keys.size() * sizeof(BlockKey)));
      response->set_tenant(session.tenant);
      response->set_model_fingerprint(session.model_fingerprint);
      response->set_blocks(static_cast<int64_t>(session.block_keys.size()));
      response->set_stored_blocks(context_->blocks->LookupPrefix(session.block_keys, 1));
      response->set_engine_state_bytes(static_cast<int64_t>(session.engine_state.size()));
      return absl::OkStatus();
    });
  }

  grpc::ServerUnaryReactor* DropSession(grpc::CallbackServerContext* call, const v1::DropSessionRequest* request,
                                        v1::DropSessionResponse*) override {
    return Run(call, [this, request](const Caller& caller) {
      const absl::StatusOr<std::string> tenant = caller.TenantFor(request->tenant());
      const absl::Status dropped = tenant.ok() ? Drop(*tenant, request->session_id()) : tenant.status();
      Audit(caller, "/tidepool.v1.CacheAdmin/DropSession",
            absl::StrCat(tenant.ok() ? *tenant : request->tenant(), "/", request->session_id()), dropped);
      return dropped;
    });
  }

  grpc::ServerWriteReactor<v1::DrainProgress>* Drain(grpc::CallbackServerContext* call,
                                                     const v1::DrainRequest* request) override {
    if (const absl::StatusOr<Caller> caller = context_->security->CallerOf(*call); caller.ok()) {
      Audit(*caller, "/tidepool.v1.CacheAdmin/Drain", context_->pod_name, absl::OkStatus());
    }
    return new DrainStream(context_, request->all_blocks());
  }

 private:
  static absl::Status Unknown(const std::string& session) {
    return absl::NotFoundError(absl::StrCat("session_id: '", session, "' is not stored"));
  }

  absl::Status Drop(const std::string& tenant, const std::string& session_id) {
    absl::StatusOr<std::optional<SessionManifest>> manifest =
        context_->manifests->Get(tenant, session_id, absl::InfiniteFuture());
    if (manifest.ok() && !manifest->has_value()) return Unknown(session_id);
    return context_->manifests->Delete(tenant, session_id, absl::InfiniteFuture());
  }

  // Job: absl::Status(const Caller&).
  template <typename Job>
  grpc::ServerUnaryReactor* Run(grpc::CallbackServerContext* call, Job job) {
    grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
    absl::StatusOr<Caller> caller = context_->security->CallerOf(*call);
    const absl::Status queued = caller.ok()
                                    ? context_->Run([reactor, job = std::move(job), caller = *std::move(caller)] {
                                        reactor->Finish(ToGrpc(job(caller)));
                                      })
                                    : caller.status();
    if (!queued.ok()) reactor->Finish(ToGrpc(queued));
    return reactor;
  }

  CacheContext* const context_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeCacheAdminService(CacheContext* context) {
  return std::make_unique<CacheAdminService>(context);
}

}  // namespace tidepool
