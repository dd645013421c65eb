#include "worker/rpc/worker_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/limits.h"
#include "security/rpc/server_security.h"
#include "worker/rpc/generation_service.h"
#include "worker/rpc/open_streams.h"

namespace tidepool {
namespace {

// In which a client reads the end of an answer.
constexpr absl::Duration kLastRead = absl::Milliseconds(100);

}  // namespace

struct WorkerServer::Impl {
  OpenStreams open;
  std::unique_ptr<grpc::Service> generation;
  std::unique_ptr<grpc::Server> server;
  std::string address;
  int port = 0;
};

WorkerServer::WorkerServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
WorkerServer::~WorkerServer() { Shutdown(absl::Seconds(1)); }

absl::StatusOr<std::unique_ptr<WorkerServer>> WorkerServer::Start(
    const std::string& listen, std::shared_ptr<const ServerSecurity> security, Engine* engine,
    const std::vector<grpc::Service*>& more, const NamedPolicies* policies, const RequestTracer* tracer) {
  auto impl = std::make_unique<Impl>();
  impl->generation =
      MakeGenerationService(engine, &impl->open, security, policies != nullptr ? *policies : NamedPolicies(), tracer);
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  builder.SetMaxReceiveMessageSize(static_cast<int>(kMaxMessageBytes));
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddListeningPort(listen, security->Credentials(), &impl->port);
  builder.RegisterService(impl->generation.get());
  for (grpc::Service* service : more) builder.RegisterService(service);
  impl->server = builder.BuildAndStart();
  const bool is_unix = absl::StartsWith(listen, "unix:");
  if (impl->server == nullptr || (!is_unix && impl->port == 0)) {
    return absl::UnavailableError(absl::StrCat("listen: cannot listen on ", listen));
  }
  if (is_unix) impl->port = 0;
  impl->address = is_unix ? listen : absl::StrCat(listen.substr(0, listen.rfind(':')), ":", impl->port);
  return std::unique_ptr<WorkerServer>(new WorkerServer(std::move(impl)));
}

const std::string& WorkerServer::address() const { return impl_->address; }
int WorkerServer::port() const { return impl_->port; }

void WorkerServer::Shutdown(absl::Duration grace) {
  if (impl_->server == nullptr) return;
  impl_->server->GetHealthCheckService()->SetServingStatus(false);
  grace = std::min(grace, absl::Hours(24));
  const absl::Time end = absl::Now() + grace;
  // gRPC closes a connection with its last stream. What the client has sent meanwhile and nobody has read would reset
  // it, and the end of the answer might be lost on its way.
  if (impl_->open.Close(absl::ToChronoNanoseconds(grace))) absl::SleepFor(std::min(kLastRead, end - absl::Now()));
  impl_->server->Shutdown(absl::ToChronoTime(end));
  impl_->server.reset();
}

}  // namespace tidepool
