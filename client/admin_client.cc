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

absl::StatusOr<v1::SessionDescription> AdminClient::Describe(const std::string& session_id) {
  v1::DescribeSessionRequest request;
  request.set_tenant(impl_->tenant);
  request.set_session_id(session_id);
  return impl_->Call(&v1::CacheAdmin::Stub::DescribeSession, request);
}

absl::Status AdminClient::Drop(const std::string& session_id) {
  v1::DropSessionRequest request;
  request.set_tenant(impl_->tenant);
  request.set_session_id(session_id);
  return impl_->Call(&v1::CacheAdmin::Stub::DropSession, request).status();
}

absl::Status AdminClient::Drain(bool all_blocks, const std::function<void(const v1::DrainProgress&)>& report) {
  grpc::ClientContext context;
  v1::DrainRequest request;
  request.set_all_blocks(all_blocks);
  const auto stream = impl_->stub->Drain(&context, request);
  v1::DrainProgress progress;
  while (stream->Read(&progress)) report(progress);
  const grpc::Status status = stream->Finish();
  return status.ok() ? absl::OkStatus() : client::FromGrpc(status, impl_->address, impl_->security.get());
}

}  // namespace tidepool
