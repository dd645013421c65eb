#include "client/generation_client.h"

#include <grpcpp/grpcpp.h>

#include <utility>

#include "base/limits.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "client/call.h"
#include "client/request_text.h"
#include "client/start_call.h"
#include "tidepool/v1/generation.grpc.pb.h"

namespace tidepool {

class GenerationClient::Impl {
 public:
  Impl(const std::string& address, std::shared_ptr<const ChannelSecurity> given)
      : address(address),
        security(std::move(given)),
        stub(v1::Generation::NewStub(client::MakeChannel(address, security.get()))) {}

  template <typename Start>
  absl::StatusOr<v1::Finished> Run(Start start, const EventHandler& on_event, absl::Time deadline) {
    grpc::ClientContext context;
    if (deadline != absl::InfiniteFuture()) context.set_deadline(absl::ToChronoTime(deadline));
    {
      MutexLock lock(&mutex);
      current = &context;
    }
    auto stream = start(&context);
    v1::GenerateResponse response;
    v1::Finished finished;
    while (stream->Read(&response)) {
      if (response.has_finished()) {
        finished = response.finished();
      } else if (on_event) {
        on_event(response);
      }
    }
    const grpc::Status status = stream->Finish();
    {
      MutexLock lock(&mutex);
      current = nullptr;
    }
    if (!status.ok()) return client::FromGrpc(status, address, security.get());
    return finished;
  }

  template <typename Request, typename Response>
  absl::StatusOr<Response> Unary(grpc::Status (v1::Generation::Stub::*call)(grpc::ClientContext*, const Request&,
                                                                            Response*),
                                 const Request& request, absl::Time deadline) {
    grpc::ClientContext context;
    if (deadline != absl::InfiniteFuture()) context.set_deadline(absl::ToChronoTime(deadline));
    Response response;
    const grpc::Status status = (stub.get()->*call)(&context, request, &response);
    if (!status.ok()) return client::FromGrpc(status, address, security.get());
    return response;
  }

  const std::string address;
  const std::shared_ptr<const ChannelSecurity> security;
  const std::unique_ptr<v1::Generation::Stub> stub;
  Mutex mutex;
  grpc::ClientContext* current ABSL_GUARDED_BY(mutex) = nullptr;
};

GenerationClient::GenerationClient(const std::string& address, std::shared_ptr<const ChannelSecurity> security)
    : impl_(std::make_unique<Impl>(address, std::move(security))) {}
GenerationClient::~GenerationClient() = default;

absl::StatusOr<v1::Finished> GenerationClient::Generate(const v1::GenerateRequest& request,
                                                        const EventHandler& on_event, absl::Time deadline) {
  TP_RETURN_IF_ERROR(client::CheckText(request));
  return impl_->Run([&](grpc::ClientContext* context) { return impl_->stub->Generate(context, request); }, on_event,
                    deadline);
}

absl::StatusOr<v1::Finished> GenerationClient::Chat(const v1::ChatRequest& request, const EventHandler& on_event,
                                                    absl::Time deadline) {
  TP_RETURN_IF_ERROR(client::CheckText(request));
  return impl_->Run([&](grpc::ClientContext* context) { return impl_->stub->Chat(context, request); }, on_event,
                    deadline);
}

std::shared_ptr<GenerationCall> GenerationClient::StartGenerate(v1::GenerateRequest request,
                                                                std::shared_ptr<GenerationCall::Reader> reader,
                                                                absl::Time deadline, const std::string& traceparent) {
  return client::StartCall(impl_->stub.get(), impl_->address, impl_->security, std::move(request), std::move(reader),
                           deadline, traceparent);
}

std::shared_ptr<GenerationCall> GenerationClient::StartChat(v1::ChatRequest request,
                                                            std::shared_ptr<GenerationCall::Reader> reader,
                                                            absl::Time deadline, const std::string& traceparent) {
  return client::StartCall(impl_->stub.get(), impl_->address, impl_->security, std::move(request), std::move(reader),
                           deadline, traceparent);
}

void GenerationClient::StartEstimate(v1::EstimateRequest request,
                                     std::function<void(absl::StatusOr<v1::EstimateResponse>)> done,
                                     absl::Time deadline) {
  client::StartEstimate(impl_->stub.get(), impl_->address, impl_->security, std::move(request), std::move(done),
                        deadline);
}

void GenerationClient::Cancel() {
  MutexLock lock(&impl_->mutex);
  if (impl_->current != nullptr) impl_->current->TryCancel();
}

absl::StatusOr<v1::ScoreResponse> GenerationClient::Score(const v1::ScoreRequest& request, absl::Time deadline) {
  return impl_->Unary(&v1::Generation::Stub::Score, request, deadline);
}
absl::StatusOr<v1::DetokenizeResponse> GenerationClient::Detokenize(const v1::DetokenizeRequest& request) {
  return impl_->Unary(&v1::Generation::Stub::Detokenize, request, client::ShortDeadline());
}
absl::StatusOr<v1::GetModelResponse> GenerationClient::GetModel() { return GetModel(client::ShortDeadline()); }
absl::StatusOr<v1::GetModelResponse> GenerationClient::GetModel(absl::Time deadline) {
  return impl_->Unary(&v1::Generation::Stub::GetModel, v1::GetModelRequest(), deadline);
}
absl::StatusOr<v1::ListPoliciesResponse> GenerationClient::ListPolicies() {
  return impl_->Unary(&v1::Generation::Stub::ListPolicies, v1::ListPoliciesRequest(), client::ShortDeadline());
}
absl::StatusOr<v1::GetWorkerStatsResponse> GenerationClient::GetWorkerStats() {
  return impl_->Unary(&v1::Generation::Stub::GetWorkerStats, v1::GetWorkerStatsRequest(), client::ShortDeadline());
}
absl::StatusOr<v1::ListBlockKeysResponse> GenerationClient::ListBlockKeys(const v1::ListBlockKeysRequest& request) {
  TP_RETURN_IF_ERROR(client::CheckText(request));
  return impl_->Unary(&v1::Generation::Stub::ListBlockKeys, request, client::ShortDeadline());
}
absl::Status GenerationClient::EndSession(const std::string& session_id) {
  v1::EndSessionRequest request;
  request.set_session_id(session_id);
  return impl_->Unary(&v1::Generation::Stub::EndSession, request, client::ShortDeadline()).status();
}

}  // namespace tidepool
