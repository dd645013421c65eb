#include "tests/e2e/fleet.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <cstdio>
#include <stdexcept>
#include <utility>

#include "absl/strings/str_cat.h"

namespace tidepool::test {
namespace {

std::shared_ptr<grpc::Channel> ChannelTo(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 500);  // servers here are away for seconds
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace

Fleet::Fleet(Options options)
    : options_(std::move(options)),
      pods_(static_cast<size_t>(options_.pods)),
      workers_(static_cast<size_t>(options_.workers)) {
  for (int pod = 0; pod < pods(); ++pod) StartPod(pod, /*peers=*/"");
  // Now that the ports are known each is told of the others.
  for (int pod = 0; pod < pods(); ++pod) {
    this->pod(pod).Kill();
    StartPod(pod);
  }
  for (int worker = 0; worker < workers(); ++worker) {
    for (int pod = 0; options_.proxies && pod < pods(); ++pod) {
      workers_[static_cast<size_t>(worker)].proxies.push_back(std::make_unique<FaultProxy>(pod_address(pod)));
    }
    StartWorker(worker);
  }
}

std::string Fleet::host(int pod) const {
  return options_.hosts.empty() ? "127.0.0.1" : options_.hosts[static_cast<size_t>(pod)];
}

std::string Fleet::pod_address(int pod) const {
  return host(pod) + ":" + std::to_string(pods_[static_cast<size_t>(pod)].port);
}

std::string Fleet::pod_addresses() const {
  std::string all;
  for (int pod = 0; pod < pods(); ++pod) absl::StrAppend(&all, pod == 0 ? "" : ",", pod_address(pod));
  return all;
}

FaultProxy& Fleet::proxy(int worker, int pod) {
  return *workers_[static_cast<size_t>(worker)].proxies[static_cast<size_t>(pod)];
}

void Fleet::StartPod(int pod) { StartPod(pod, pods() > 1 ? pod_addresses() : ""); }

void Fleet::StartPod(int pod, const std::string& peers) {
  Pod& started = pods_[static_cast<size_t>(pod)];
  const std::string name = "pod-" + std::to_string(pod), port_file = dir_.File(name + ".port");
  std::remove(port_file.c_str());
  std::vector<std::string> argv;
  if (!options_.namespaces.empty()) {
    argv = {"ip", "netns", "exec", options_.namespaces[static_cast<size_t>(pod)]};
  }
  argv.insert(argv.end(), {BinaryPath("tidepool-cache"), "--listen=" + pod_address(pod),
                           "--data-dir=" + (options_.data_dirs.empty() ? dir_.File(name)
                                                                       : options_.data_dirs[static_cast<size_t>(pod)]),
                           "--pod-name=" + name, "--port-file=" + port_file});
  if (!peers.empty()) argv.push_back("--peers=" + peers);
  argv.insert(argv.end(), options_.pod_flags.begin(), options_.pod_flags.end());
  started.process = nullptr;
  started.process = std::make_unique<ChildProcess>(argv);
  started.port = started.process->WaitForPortFile(port_file);
  if (started.admin == nullptr) started.admin = v1::CacheAdmin::NewStub(ChannelTo(pod_address(pod)));
}

void Fleet::StartWorker(int worker) {
  Worker& started = workers_[static_cast<size_t>(worker)];
  const std::string port_file = dir_.File("worker-" + std::to_string(worker) + ".port");
  std::remove(port_file.c_str());
  std::string cache = options_.proxies ? "" : pod_addresses();
  for (const std::unique_ptr<FaultProxy>& proxy : started.proxies) {
    absl::StrAppend(&cache, cache.empty() ? "" : ",", proxy->address());
  }
  std::vector<std::string> argv = {BinaryPath("tidepool-worker"), "--model=" + options_.model, "--cache=" + cache,
                                   "--listen=" + worker_address(worker), "--port-file=" + port_file};
  argv.insert(argv.end(), options_.worker_flags.begin(), options_.worker_flags.end());
  started.process = nullptr;
  started.process = std::make_unique<ChildProcess>(argv);
  started.port = started.process->WaitForPortFile(port_file);
  if (started.generation == nullptr) started.generation = v1::Generation::NewStub(ChannelTo(worker_address(worker)));
}

std::string Fleet::worker_address(int worker) const {
  return "127.0.0.1:" + std::to_string(workers_[static_cast<size_t>(worker)].port);
}

v1::GetStatsResponse Fleet::PodStats(int pod) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  v1::GetStatsResponse response;
  const grpc::Status status = pods_[static_cast<size_t>(pod)].admin->GetStats(&context, {}, &response);
  if (!status.ok()) throw std::runtime_error("GetStats of pod " + std::to_string(pod) + ": " + status.error_message());
  return response;
}

int64_t Fleet::Revision(const std::string& session) {
  int64_t newest = 0;
  for (Pod& pod : pods_) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(2));
    v1::DescribeSessionRequest request;
    request.set_session_id(session);
    v1::SessionDescription description;
    if (!pod.admin->DescribeSession(&context, request, &description).ok()) continue;
    newest = std::max(newest, description.summary().revision());
  }
  return newest;
}

v1::GetWorkerStatsResponse Fleet::WorkerStats(int worker) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  v1::GetWorkerStatsResponse response;
  const grpc::Status status = generation(worker).GetWorkerStats(&context, {}, &response);
  if (!status.ok()) {
    throw std::runtime_error("GetWorkerStats of worker " + std::to_string(worker) + ": " + status.error_message());
  }
  return response;
}

v1::CachePodStats::State Fleet::StateOf(int worker, int pod) {
  const std::string address = options_.proxies ? proxy(worker, pod).address() : pod_address(pod);
  const v1::GetWorkerStatsResponse stats = WorkerStats(worker);
  for (const v1::CachePodStats& seen : stats.cache_pods()) {
    if (seen.address() == address) return seen.state();
  }
  return v1::CachePodStats::STATE_UNSPECIFIED;
}

bool Fleet::AllUp(int worker) {
  const v1::GetWorkerStatsResponse stats = WorkerStats(worker);
  for (const v1::CachePodStats& seen : stats.cache_pods()) {
    if (seen.state() != v1::CachePodStats::STATE_UP && seen.state() != v1::CachePodStats::STATE_SLOW_START)
      return false;
  }
  return stats.cache_pods_size() == pods();
}

bool Fleet::SeesAll(int worker) {
  try {
    return AllUp(worker);
  } catch (const std::runtime_error&) {
    return false;
  }
}

}  // namespace tidepool::test
