#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/status_macros.h"
#include "cacheservice/rpc/admin_messages.h"
#include "cacheservice/rpc/cache_store_service.h"
#include "cacheservice/rpc/drain_stream.h"
#include "cacheservice/rpc/explain.h"
#include "cacheservice/rpc/job_stream.h"
#include "cacheservice/rpc/scrub.h"
#include "security/audit.h"
#include "tidepool/v1/cache_admin.grpc.pb.h"

namespace tidepool {
namespace {

class CacheAdminService final : public v1::CacheAdmin::CallbackService {
 public:
  explicit CacheAdminService(CacheContext* context) : context_(context) {}

  grpc::ServerUnaryReactor* GetStats(grpc::CallbackServerContext* call, const v1::GetStatsRequest*,
                                     v1::GetStatsResponse* response) override {
    return Run(call, [this, response](const Caller&) {
      Fill(context_->blocks->Stats(), *response);
      for (const TenantStats& tenant : context_->blocks->Tenants()) Fill(tenant, *response->add_tenants());
      AddPinned(*response);
      for (const StreamStats& stream : context_->streams.Stats()) Fill(stream, *response->add_streams());
      response->set_sessions(static_cast<uint64_t>(context_->manifests->Stats().sessions));
      response->set_uptime_seconds(absl::ToDoubleSeconds(absl::Now() - context_->started));
      response->set_unix_ms(absl::ToUnixMillis(absl::Now()));
      response->set_version(TIDEPOOL_VERSION);
      response->set_open_streams(static_cast<uint64_t>(response->streams_size()));
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
      response->set_stored_blocks(context_->blocks->LookupPrefix(session.block_keys, 1).blocks);
      for (size_t i = 0; request->with_keys() && i < session.block_keys.size(); ++i) {
        response->add_block_keys(std::string(session.block_keys[i].AsString()));
      }
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

  grpc::ServerUnaryReactor* Explain(grpc::CallbackServerContext* call, const v1::ExplainRequest* request,
                                    v1::ExplainResponse* response) override {
    return Run(call, [this, call, request, response](const Caller& caller) {
      TP_ASSIGN_OR_RETURN(const std::string tenant, caller.TenantFor(request->tenant()));
      response->set_pod_name(context_->pod_name);
      return tidepool::Explain(*context_->blocks, *context_->manifests, *request, tenant,
                               absl::FromChrono(call->deadline()), response);
    });
  }

  grpc::ServerUnaryReactor* Pin(grpc::CallbackServerContext* call, const v1::PinRequest* request,
                                v1::PinDescription* response) override {
    return Run(call, [this, request, response](const Caller& caller) {
      absl::StatusOr<PinName> name = NameOf(caller, *request);
      const absl::Status status = name.ok() ? DoPin(*name, *request, *response) : name.status();
      Audit(caller, "/tidepool.v1.CacheAdmin/Pin", TargetOf(*request), status);
      return status;
    });
  }

  grpc::ServerUnaryReactor* Unpin(grpc::CallbackServerContext* call, const v1::UnpinRequest* request,
                                  v1::UnpinResponse*) override {
    return Run(call, [this, request](const Caller& caller) {
      absl::StatusOr<PinName> name = NameOf(caller, *request);
      const absl::Status status = name.ok() ? context_->pins->Unpin(*name) : name.status();
      Audit(caller, "/tidepool.v1.CacheAdmin/Unpin", TargetOf(*request), status);
      return status;
    });
  }

  grpc::ServerUnaryReactor* ListPins(grpc::CallbackServerContext* call, const v1::ListPinsRequest* request,
                                     v1::ListPinsResponse* response) override {
    return Run(call, [this, request, response](const Caller& caller) {
      std::string tenant = request->tenant();
      if (!caller.all_tenants()) {
        TP_ASSIGN_OR_RETURN(tenant, caller.TenantFor(tenant));
      }
      for (const PinInfo& pin : context_->pins->List(tenant)) Fill(pin, *response->add_pins());
      return absl::OkStatus();
    });
  }

  grpc::ServerUnaryReactor* SetQuota(grpc::CallbackServerContext* call, const v1::SetQuotaRequest* request,
                                     v1::SetQuotaResponse*) override {
    return Run(call, [this, request](const Caller& caller) {
      const v1::TenantQuota& quota = request->quota();
      const absl::Status status = context_->blocks->SetQuota(request->tenant(), {.memory_bytes = quota.memory_bytes(),
                                                                                 .disk_bytes = quota.disk_bytes(),
                                                                                 .pinned_bytes = quota.pinned_bytes()});
      Audit(caller, "/tidepool.v1.CacheAdmin/SetQuota",
            absl::StrCat(request->tenant(), " memory ", quota.memory_bytes(), " disk ", quota.disk_bytes(), " pinned ",
                         quota.pinned_bytes()),
            status);
      return status;
    });
  }

  grpc::ServerWriteReactor<v1::ScrubProgress>* Scrub(grpc::CallbackServerContext* call,
                                                     const v1::ScrubRequest* request) override {
    const absl::Status admitted = Begin(*call, "Scrub", CheckScrubRate(request->bytes_per_second()));
    if (!admitted.ok()) return new JobStream<v1::ScrubProgress>(admitted);
    return new JobStream<v1::ScrubProgress>(
        &context_->jobs, &context_->scrubbing, "scrub",
        [context = context_, rate = request->bytes_per_second()](JobControl& control, const auto& report) {
          return tidepool::Scrub(*context->blocks, *context->manifests, rate, control, report);
        });
  }

  grpc::ServerWriteReactor<v1::CompactProgress>* Compact(grpc::CallbackServerContext* call,
                                                         const v1::CompactRequest*) override {
    const absl::Status admitted = Begin(*call, "Compact", absl::OkStatus());
    if (!admitted.ok()) return new JobStream<v1::CompactProgress>(admitted);
    return new JobStream<v1::CompactProgress>(
        &context_->jobs, &context_->compacting, "compact", [context = context_](JobControl&, const auto& report) {
          v1::CompactProgress progress;
          progress.set_used_bytes_before(context->blocks->Stats().disk_used_bytes);
          progress.set_used_bytes(progress.used_bytes_before());
          report(progress);
          TP_RETURN_IF_ERROR(context->blocks->Compact());
          progress.set_used_bytes(context->blocks->Stats().disk_used_bytes);
          progress.set_finished(true);
          report(progress);
          return absl::OkStatus();
        });
  }

  grpc::ServerUnaryReactor* GetConfig(grpc::CallbackServerContext* call, const v1::GetConfigRequest*,
                                      v1::GetConfigResponse* response) override {
    return Run(call, [this, response](const Caller&) {
      for (const RuntimeConfig::Entry& entry : context_->config->Entries()) Fill(entry, *response->add_flags());
      return absl::OkStatus();
    });
  }

  grpc::ServerUnaryReactor* SetConfig(grpc::CallbackServerContext* call, const v1::SetConfigRequest* request,
                                      v1::ConfigFlag* response) override {
    return Run(call, [this, request, response](const Caller& caller) {
      const absl::StatusOr<RuntimeConfig::Entry> entry = context_->config->Set(request->name(), request->value());
      Audit(caller, "/tidepool.v1.CacheAdmin/SetConfig", absl::StrCat(request->name(), "=", request->value()),
            entry.status());
      if (entry.ok()) Fill(*entry, *response);
      return entry.status();
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
  // Pins by name, per tenant; those that a stream holds are nobody's.
  void AddPinned(v1::GetStatsResponse& response) const {
    for (const PinInfo& pin : context_->pins->List("")) {
      for (v1::TenantStats& tenant : *response.mutable_tenants()) {
        if (tenant.tenant() == pin.name.tenant) tenant.set_pinned_bytes(tenant.pinned_bytes() + pin.bytes);
      }
    }
  }

  // Of a long call: audited when it begins. `valid`: what its request is worth.
  absl::Status Begin(const grpc::CallbackServerContext& call, const char* method, absl::Status valid) const {
    const absl::StatusOr<Caller> caller = context_->security->CallerOf(call);
    if (!caller.ok()) return caller.status();
    Audit(*caller, absl::StrCat("/tidepool.v1.CacheAdmin/", method), context_->pod_name, valid);
    return valid;
  }

  template <typename Request>
  static std::string TargetOf(const Request& request) {
    return absl::StrCat(request.tenant(), request.session_id().empty() ? "/prefix " : "/session ", request.session_id(),
                        request.name());
  }

  template <typename Request>
  static absl::StatusOr<PinName> NameOf(const Caller& caller, const Request& request) {
    TP_ASSIGN_OR_RETURN(std::string tenant, caller.TenantFor(request.tenant()));
    if (request.session_id().empty() == request.name().empty()) {
      return absl::InvalidArgumentError("session_id, name: one of them must be given, and not both");
    }
    const bool is_session = request.name().empty();
    return PinName{.tenant = std::move(tenant),
                   .is_session = is_session,
                   .name = is_session ? request.session_id() : request.name()};
  }

  absl::Status DoPin(const PinName& name, const v1::PinRequest& request, v1::PinDescription& response) {
    constexpr int64_t kMostSeconds = 365 * 86'400;
    if (request.ttl_seconds() < 0 || request.ttl_seconds() > kMostSeconds) {
      return absl::InvalidArgumentError(
          absl::StrCat("ttl_seconds: ", request.ttl_seconds(), " is not in 1 to ", kMostSeconds, ", or 0 for ever"));
    }
    std::vector<BlockKey> keys;
    if (name.is_session && request.keys().empty()) {
      TP_ASSIGN_OR_RETURN(std::optional<SessionManifest> manifest,
                          context_->manifests->Get(name.tenant, name.name, absl::InfiniteFuture()));
      if (!manifest.has_value()) return Unknown(name.name);
      keys = std::move(manifest->block_keys);
      if (keys.empty()) return absl::NotFoundError(absl::StrCat("session_id: '", name.name, "' has no blocks"));
    } else {
      TP_ASSIGN_OR_RETURN(keys, KeysFrom(request.keys()));
    }
    const absl::Time expires =
        request.ttl_seconds() == 0 ? absl::InfiniteFuture() : absl::Now() + absl::Seconds(request.ttl_seconds());
    TP_ASSIGN_OR_RETURN(const PinInfo pin, context_->pins->Pin(name, keys, expires));
    Fill(pin, response);
    return absl::OkStatus();
  }

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
