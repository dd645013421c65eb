#include "worker/rpc/worker_process.h"

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/flags.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "metrics/metrics_server.h"
#include "tracing/span_exporter.h"
#include "worker/backend/backend.h"
#include "worker/model/model.h"
#include "worker/rpc/request_tracer.h"
#include "worker/rpc/worker_flags.h"
#include "worker/rpc/worker_metrics.h"
#include "worker/rpc/worker_page.h"
#include "worker/rpc/worker_server.h"

namespace tidepool {
namespace {

// Null without --metrics-address.
absl::StatusOr<std::unique_ptr<MetricsServer>> ServeMetrics(const Engine& engine, const AttachedCache& cache,
                                                            const std::string& tenant, const SpanExporter* exporter) {
  const std::string address = MetricsAddressFlag();
  if (address.empty()) return nullptr;
  std::vector<MetricsSource> sources = {
      AddProcessMetrics, [&engine, tenant](MetricsPage& page) { AddWorkerMetrics(engine, tenant, page); },
      [exporter](MetricsPage& page) { AddTraceMetrics(exporter, page); }};
  if (cache.metrics) sources.push_back(cache.metrics);
  return MetricsServer::Start(address, std::move(sources));
}

std::vector<std::pair<std::string, std::string>> ResourceOfWorker() {
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  return {{"service.name", "tidepool-worker"}, {"host.name", host}, {"process.pid", std::to_string(getpid())}};
}

absl::Status Serve(const WorkerProcess& process, const sigset_t& signals) {
  if (ModelFlag().empty()) return absl::InvalidArgumentError("--model is required");
  TP_ASSIGN_OR_RETURN(EngineOptions options, EngineOptionsFromFlags());
  TP_ASSIGN_OR_RETURN(const NamedPolicies policies, PoliciesFromFlags());
  TP_ASSIGN_OR_RETURN(const std::optional<OtlpEndpoint> collector, OtlpEndpointFromFlags());
  TP_ASSIGN_OR_RETURN(const std::shared_ptr<const ServerSecurity> security,
                      ServerSecurity::Open(process.security, process.listen));
  if (ValidateConfigFlag()) return absl::OkStatus();
  const std::string tenant = options.tenant;
  absl::StatusOr<std::shared_ptr<const Model>> model = Model::Load(ModelFlag());
  // A file that is missing or broken is not a mistake in the command's form: exit code 1.
  if (!model.ok()) return absl::FailedPreconditionError(absl::StrCat("--model: ", model.status().message()));
  // The engine lets go of the cache before the cache goes.
  TP_ASSIGN_OR_RETURN(const AttachedCache cache,
                      process.open_cache(LayoutOf(**model, options.kv_type), options, *security));
  std::unique_ptr<SpanExporter> exporter;
  std::unique_ptr<RequestTracer> tracer;
  if (collector.has_value()) {
    exporter = std::make_unique<SpanExporter>(*collector, ResourceOfWorker());
    tracer = std::make_unique<RequestTracer>(exporter.get(), TraceShareFlag(), (*model)->config().name);
  }
  TP_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine,
                      Engine::Create(std::move(options), *model, cache.blocks, cache.manifests));
  TP_ASSIGN_OR_RETURN(
      const std::unique_ptr<WorkerServer> server,
      WorkerServer::Start(process.listen, security, engine.get(), cache.services, &policies, tracer.get()));
  TP_ASSIGN_OR_RETURN(const std::unique_ptr<MetricsServer> metrics,
                      ServeMetrics(*engine, cache, tenant, exporter.get()));
  std::unique_ptr<PageServer> page;
  if (const std::string address = PageAddressFlag(); !address.empty()) {
    TP_ASSIGN_OR_RETURN(page, PageServer::Start(address, WorkerPages(engine.get())));
    std::printf("page on http://%s/\n", page->address().c_str());
  }
  if (!PortFileFlag().empty()) TP_RETURN_IF_ERROR(WritePortFile(PortFileFlag(), server->port()));
  if (metrics != nullptr) std::printf("metrics on http://%s/metrics\n", metrics->address().c_str());
  std::printf("listening on %s\n", server->address().c_str());
  std::fflush(stdout);
  int signal = 0;
  sigwait(&signals, &signal);
  TP_LOG(Info, "worker", "ending on signal ", signal);
  server->Shutdown(DrainTimeFlag());
  return absl::OkStatus();
}

}  // namespace

int RunWorker(const WorkerProcess& process) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  const absl::Status status = Serve(process, signals);
  if (status.ok()) return 0;
  std::fprintf(stderr, "%s: %s\n", process.program.c_str(), std::string(status.message()).c_str());
  if (!absl::IsInvalidArgument(status)) return 1;
  std::fprintf(stderr, "Try: %s --help\n", process.program.c_str());
  return 2;
}

}  // namespace tidepool
