#include "cacheservice/rpc/cache_server.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/impl/codegen/service_type.h>

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "cacheservice/embedded/cache_storage.h"
#include "cacheservice/rpc/cache_context.h"
#include "cacheservice/rpc/cache_metrics.h"
#include "cacheservice/rpc/cache_store_service.h"
#include "cacheservice/rpc/pod_drain.h"
#include "cacheservice/rpc/pod_name.h"
#include "cacheservice/rpc/runtime_config.h"
#include "metrics/metrics_server.h"

namespace tidepool {

struct CacheServer::Impl {
  CacheStorage storage;
  std::shared_ptr<const ServerSecurity> security;
  std::unique_ptr<RuntimeConfig> config;
  std::unique_ptr<CacheContext> context;
  std::unique_ptr<PodDrain> drain;
  std::unique_ptr<grpc::Service> store, admin;
  std::unique_ptr<MetricsServer> metrics;
  std::unique_ptr<grpc::Server> server;
  std::string address;
  int port = 0;
};

CacheServer::CacheServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

CacheServer::~CacheServer() { Shutdown(absl::Seconds(1)); }

namespace {

// All but the security.
absl::Status CheckOptions(const CacheServerOptions& options) {
  if (options.threads < 1 || options.threads > 64) {
    return absl::InvalidArgumentError(absl::StrCat("threads: ", options.threads, " is not in 1 to 64"));
  }
  if (options.staging_bytes < (int64_t{1} << 20)) {
    return absl::InvalidArgumentError(absl::StrCat("staging_bytes: ", options.staging_bytes, ", at least 1 MiB"));
  }
  TP_RETURN_IF_ERROR(
      CheckMetricsAddress(options.metrics_address, options.metrics_insecure || options.security.insecure));
  return options.cache.Validate();
}

}  // namespace

absl::Status ValidateCacheServerOptions(const CacheServerOptions& options) {
  TP_RETURN_IF_ERROR(CheckOptions(options));
  return ServerSecurity::Open(options.security, options.listen).status();
}

absl::StatusOr<std::unique_ptr<CacheServer>> CacheServer::Start(const CacheServerOptions& options) {
  TP_RETURN_IF_ERROR(CheckOptions(options));
  auto impl = std::make_unique<Impl>();
  TP_ASSIGN_OR_RETURN(impl->security, ServerSecurity::Open(options.security, options.listen));
  TP_ASSIGN_OR_RETURN(impl->storage, CacheStorage::Open(options.cache));
  // Those that wait for the remote tier must not keep others from memory and disk.
  const int threads = options.threads + (options.cache.remote.enabled() ? options.cache.remote.readers : 0);
  impl->context = std::make_unique<CacheContext>(impl->storage.blocks.get(), impl->storage.manifests.get(), threads,
                                                 options.staging_bytes, impl->security.get());
  impl->config = std::make_unique<RuntimeConfig>(impl->storage.blocks.get(), options.flags);
  impl->context->pins = impl->storage.pins.get();
  impl->context->config = impl->config.get();
  TP_ASSIGN_OR_RETURN(impl->context->pod_name, PodName(options.pod_name, impl->storage.database.get()));
  if (options.peers.from_dns() || !options.peers.addresses.empty()) {
    // Towards its peers a pod is who it is towards its clients.
    std::shared_ptr<const ChannelSecurity> security;
    if (const ServerSecurityOptions& own = options.security; !own.tls_ca.empty()) {
      TP_ASSIGN_OR_RETURN(security, ChannelSecurity::Create({.tls_ca = own.tls_ca,
                                                             .tls_cert = own.tls_cert,
                                                             .tls_key = own.tls_key,
                                                             .tls_server_name = options.peers.dns_host,
                                                             .token = "",
                                                             .token_file = ""}));
    }
    impl->drain = std::make_unique<PodDrain>(impl->context.get(), options.peers, std::move(security));
    impl->context->drain = impl->drain.get();
  }
  impl->store = MakeCacheStoreService(impl->context.get());
  impl->admin = MakeCacheAdminService(impl->context.get());

  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  builder.SetMaxReceiveMessageSize(static_cast<int>(kMaxMessageBytes));
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddListeningPort(options.listen, impl->security->Credentials(), &impl->port);
  builder.RegisterService(impl->store.get());
  builder.RegisterService(impl->admin.get());
  impl->server = builder.BuildAndStart();
  const bool is_unix = absl::StartsWith(options.listen, "unix:");
  if (impl->server == nullptr || (!is_unix && impl->port == 0)) {
    return absl::UnavailableError(absl::StrCat("listen: cannot listen on ", options.listen));
  }
  if (is_unix) {
    impl->port = 0;
    impl->address = options.listen;
  } else {
    impl->address = absl::StrCat(options.listen.substr(0, options.listen.rfind(':')), ":", impl->port);
  }
  if (!options.metrics_address.empty()) {
    const auto show = [context = impl->context.get()](MetricsPage& page) { AddCacheMetrics(*context, page); };
    TP_ASSIGN_OR_RETURN(impl->metrics, MetricsServer::Start(options.metrics_address, {AddProcessMetrics, show}));
  }
  return std::unique_ptr<CacheServer>(new CacheServer(std::move(impl)));
}

const std::string& CacheServer::address() const { return impl_->address; }
int CacheServer::port() const { return impl_->port; }
std::string CacheServer::metrics_address() const { return impl_->metrics ? impl_->metrics->address() : ""; }

void CacheServer::Shutdown(absl::Duration grace) {
  if (impl_->server == nullptr) return;
  impl_->server->GetHealthCheckService()->SetServingStatus(false);
  if (impl_->drain != nullptr) impl_->drain->Cancel();
  impl_->server->Shutdown(absl::ToChronoTime(absl::Now() + grace));
  impl_->server.reset();
  impl_->metrics.reset();
  impl_->drain.reset();
  impl_->context.reset();
  if (absl::Status status = impl_->storage.blocks->Drain(); !status.ok()) {
    TP_LOG(Warning, "cache", "not everything could be written at shutdown: ", status.message());
  }
}

}  // namespace tidepool
