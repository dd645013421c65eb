#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "cacheservice/rpc/cache_store_service.h"
#include "cacheservice/rpc/drain_stream.h"
#include "tidepool/v1/cache_admin.grpc.pb.h"

namespace tidepool {
namespace {

std::string TenantOr(const std::string& tenant) { return tenant.empty() ? "default" : tenant; }

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
    return Run(call, [this, response] {
      const CacheStats stats = context_->blocks->Stats();
      Fill(stats.memory, *response->mutable_memory());
      Fill(stats.disk, *response->mutable_disk());
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
    return Run(call, [this, request, response] {
      const int size = request->page_size() == 0 ? 100 : request->page_size();
      if (size < 1 || size > 1000) {
        return absl::InvalidArgumentError(absl::StrCat("page_size: ", size, " is not in 1 to 1000, or 0 for 100"));
      }
      absl::StatusOr<ManifestPage> page =
          context_->manifests->List(TenantOr(request->tenant()), size, request->page_token());
      if (!page.ok()) return page.status();
      for (const ManifestSummary& session : page->sessions) Fill(session, *response->add_sessions());
      response->set_next_page_token(page->next_page_token);
      return absl::OkStatus();
    });
  }

  grpc::ServerUnaryReactor* DescribeSession(grpc::CallbackServerContext* call,
                                            const v1::DescribeSessionRequest* request,
                                            v1::SessionDescription* response) override {
    return Run(call, [this, request, response] {
      absl::StatusOr<std::optional<SessionManifest>> manifest =
          context_->manifests->Get(TenantOr(request->tenant()), request->session_id(), absl::InfiniteFuture());
      if (!manifest.ok()) return manifest.status();
      if (!manifest->has_value()) return Unknown(request->session_id());
      const SessionManifest& session = **manifest;
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
    return Run(call, [this, request] {
      const std::string tenant = TenantOr(request->tenant());
      absl::StatusOr<std::optional<SessionManifest>> manifest =
          context_->manifests->Get(tenant, request->session_id(), absl::InfiniteFuture());
      if (manifest.ok() && !manifest->has_value()) return Unknown(request->session_id());
      return context_->manifests->Delete(tenant, request->session_id(), absl::InfiniteFuture());
    });
  }

  grpc::ServerWriteReactor<v1::DrainProgress>* Drain(grpc::CallbackServerContext*,
                                                     const v1::DrainRequest* request) override {
    return new DrainStream(context_, request->all_blocks());
  }

 private:
  static absl::Status Unknown(const std::string& session) {
    return absl::NotFoundError(absl::StrCat("session_id: '", session, "' is not stored"));
  }

  template <typename Job>
  grpc::ServerUnaryReactor* Run(grpc::CallbackServerContext* call, Job job) {
    grpc::ServerUnaryReactor* reactor = call->DefaultReactor();
    const absl::Status queued = context_->Run([reactor, job = std::move(job)] { reactor->Finish(ToGrpc(job())); });
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
