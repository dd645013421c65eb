#include "client/admin_client.h"

#include <grpcpp/grpcpp.h>

#include <utility>

#include "client/call.h"
#include "tidepool/v1/cache_admin.grpc.pb.h"

namespace tidepool {

class AdminClient::Impl {
 public:
  Impl(const std::string& address, std::string tenant, std::shared_ptr<const ChannelSecurity> given)
      : address(address),
        security(std::move(given)),
        stub(v1::CacheAdmin::NewStub(client::MakeChannel(address, security.get()))),
        tenant(std::move(tenant)) {}

  template <typename Request, typename Response>
  absl::StatusOr<Response> Call(grpc::Status (v1::CacheAdmin::Stub::*call)(grpc::ClientContext*, const Request&,
                                                                           Response*),
                                const Request& request) {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(client::ShortDeadline()));
    Response response;
    const grpc::Status status = (stub.get()->*call)(&context, request, &response);
    if (!status.ok()) return client::FromGrpc(status, address, security.get());
    return response;
  }

  template <typename Progress, typename Request>
  absl::Status Follow(std::unique_ptr<grpc::ClientReader<Progress>> (v1::CacheAdmin::Stub::*call)(grpc::ClientContext*,
                                                                                                  const Request&),
                      const Request& request, const std::function<void(const Progress&)>& report) {
    grpc::ClientContext context;
    const auto stream = (stub.get()->*call)(&context, request);
    Progress progress;
    while (stream->Read(&progress)) report(progress);
    const grpc::Status status = stream->Finish();
    return status.ok() ? absl::OkStatus() : client::FromGrpc(status, address, security.get());
  }

  const std::string address;
  const std::shared_ptr<const ChannelSecurity> security;
  const std::unique_ptr<v1::CacheAdmin::Stub> stub;
  const std::string tenant;
};

AdminClient::AdminClient(const std::string& address, std::string tenant,
                         std::shared_ptr<const ChannelSecurity> security)
    : impl_(std::make_unique<Impl>(address, std::move(tenant), std::move(security))) {}
AdminClient::~AdminClient() = default;

absl::StatusOr<v1::GetStatsResponse> AdminClient::Stats() {
  return impl_->Call(&v1::CacheAdmin::Stub::GetStats, v1::GetStatsRequest());
}

absl::StatusOr<std::vector<v1::SessionSummary>> AdminClient::Sessions() {
  std::vector<v1::SessionSummary> sessions;
  v1::ListSessionsRequest request;
  request.set_tenant(impl_->tenant);
  do {
    absl::StatusOr<v1::ListSessionsResponse> page = impl_->Call(&v1::CacheAdmin::Stub::ListSessions, request);
    if (!page.ok()) return page.status();
    sessions.insert(sessions.end(), page->sessions().begin(), page->sessions().end());
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  return sessions;
}

absl::StatusOr<v1::SessionDescription> AdminClient::Describe(const std::string& session_id, bool with_keys) {
  v1::DescribeSessionRequest request;
  request.set_tenant(impl_->tenant);
  request.set_session_id(session_id);
  request.set_with_keys(with_keys);
  return impl_->Call(&v1::CacheAdmin::Stub::DescribeSession, request);
}

absl::Status AdminClient::Drop(const std::string& session_id) {
  v1::DropSessionRequest request;
  request.set_tenant(impl_->tenant);
  request.set_session_id(session_id);
  return impl_->Call(&v1::CacheAdmin::Stub::DropSession, request).status();
}

absl::Status AdminClient::Drain(bool all_blocks, const std::function<void(const v1::DrainProgress&)>& report) {
  v1::DrainRequest request;
  request.set_all_blocks(all_blocks);
  return impl_->Follow(&v1::CacheAdmin::Stub::Drain, request, report);
}

absl::StatusOr<v1::ExplainResponse> AdminClient::Explain(v1::ExplainRequest request) {
  if (request.tenant().empty()) request.set_tenant(impl_->tenant);
  return impl_->Call(&v1::CacheAdmin::Stub::Explain, request);
}

absl::StatusOr<v1::PinDescription> AdminClient::Pin(v1::PinRequest request) {
  if (request.tenant().empty()) request.set_tenant(impl_->tenant);
  return impl_->Call(&v1::CacheAdmin::Stub::Pin, request);
}

absl::Status AdminClient::Unpin(v1::UnpinRequest request) {
  if (request.tenant().empty()) request.set_tenant(impl_->tenant);
  return impl_->Call(&v1::CacheAdmin::Stub::Unpin, request).status();
}

absl::StatusOr<v1::ListPinsResponse> AdminClient::Pins() {
  v1::ListPinsRequest request;
  request.set_tenant(impl_->tenant);
  return impl_->Call(&v1::CacheAdmin::Stub::ListPins, request);
}

absl::Status AdminClient::SetQuota(const v1::TenantQuota& quota) {
  v1::SetQuotaRequest request;
  request.set_tenant(impl_->tenant);
  *request.mutable_quota() = quota;
  return impl_->Call(&v1::CacheAdmin::Stub::SetQuota, request).status();
}

absl::StatusOr<v1::GetConfigResponse> AdminClient::Config() {
  return impl_->Call(&v1::CacheAdmin::Stub::GetConfig, v1::GetConfigRequest());
}

absl::StatusOr<v1::ConfigFlag> AdminClient::SetConfig(const std::string& name, const std::string& value) {
  v1::SetConfigRequest request;
  request.set_name(name);
  request.set_value(value);
  return impl_->Call(&v1::CacheAdmin::Stub::SetConfig, request);
}

absl::Status AdminClient::Scrub(uint64_t bytes_per_second,
                                const std::function<void(const v1::ScrubProgress&)>& report) {
  v1::ScrubRequest request;
  request.set_bytes_per_second(bytes_per_second);
  return impl_->Follow(&v1::CacheAdmin::Stub::Scrub, request, report);
}

absl::Status AdminClient::Compact(const std::function<void(const v1::CompactProgress&)>& report) {
  return impl_->Follow(&v1::CacheAdmin::Stub::Compact, v1::CompactRequest(), report);
}

}  // namespace tidepool
