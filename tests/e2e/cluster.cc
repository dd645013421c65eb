#include "tests/e2e/cluster.h"

#include <stdexcept>
#include <utility>

namespace tidepool::test {

Cluster::Cluster(Options options) : options_(std::move(options)) {
  StartCache();
  StartWorker();
}

void Cluster::StartCache() {
  const std::string port_file = dir_.path() + "/cache.port";
  std::remove(port_file.c_str());
  cache_ = std::make_unique<ChildProcess>(
      std::vector<std::string>{BinaryPath("tidepool-cache"), "--listen=127.0.0.1:" + std::to_string(cache_port_),
                               "--data-dir=" + dir_.path() + "/cache", "--memory-bytes=" + options_.cache_memory,
                               "--disk-bytes=2GiB", "--port-file=" + port_file});
  cache_port_ = cache_->WaitForPortFile(port_file);
  cache_address_ = "127.0.0.1:" + std::to_string(cache_port_);
  admin_ = v1::CacheAdmin::NewStub(grpc::CreateChannel(cache_address_, grpc::InsecureChannelCredentials()));
}

void Cluster::StartWorker() {
  const std::string port_file = dir_.path() + "/worker.port";
  std::remove(port_file.c_str());
  std::vector<std::string> argv = {BinaryPath("tidepool-worker"), "--model=" + options_.model, "--listen=127.0.0.1:0",
                                   "--cache=" + cache_address_, "--port-file=" + port_file};
  argv.insert(argv.end(), options_.worker_flags.begin(), options_.worker_flags.end());
  worker_ = std::make_unique<ChildProcess>(argv);
  worker_address_ = "127.0.0.1:" + std::to_string(worker_->WaitForPortFile(port_file));
  generation_ = v1::Generation::NewStub(grpc::CreateChannel(worker_address_, grpc::InsecureChannelCredentials()));
}

void Cluster::KillCache() { cache_->Kill(); }
void Cluster::KillWorker() { worker_->Kill(); }

Reply Cluster::Generate(const v1::GenerateRequest& request,
                        const std::function<bool(const v1::GenerateResponse&)>& on_event) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kProcessTimeout);
  auto stream = generation_->Generate(&context, request);
  Reply reply;
  v1::GenerateResponse response;
  while (stream->Read(&response)) {
    if (response.has_tokens()) {
      reply.text += response.tokens().text();
      reply.ids.insert(reply.ids.end(), response.tokens().ids().begin(), response.tokens().ids().end());
      for (const v1::TokenLogprob& l : response.tokens().logprobs()) reply.logprobs.push_back(l.logprob());
    }
    if (response.has_finished()) reply.finished = response.finished();
    if (on_event && !on_event(response)) context.TryCancel();
  }
  reply.status = stream->Finish();
  return reply;
}

v1::GetWorkerStatsResponse Cluster::WorkerStats() {
  grpc::ClientContext context;
  v1::GetWorkerStatsResponse response;
  const grpc::Status status = generation_->GetWorkerStats(&context, {}, &response);
  if (!status.ok()) throw std::runtime_error("GetWorkerStats: " + status.error_message());
  return response;
}

v1::GetStatsResponse Cluster::CacheStats() {
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  context.set_deadline(std::chrono::system_clock::now() + kProcessTimeout);
  v1::GetStatsResponse response;
  const grpc::Status status = admin_->GetStats(&context, {}, &response);
  if (!status.ok()) throw std::runtime_error("GetStats: " + status.error_message());
  return response;
}

}  // namespace tidepool::test
