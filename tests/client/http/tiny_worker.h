// A worker of a tiny model in this process, whose answers can be held: a real engine behind a real gRPC server.
#ifndef TIDEPOOL_TESTS_CLIENT_HTTP_TINY_WORKER_H_
#define TIDEPOOL_TESTS_CLIENT_HTTP_TINY_WORKER_H_

#include <memory>
#include <string>

#include "security/rpc/server_security.h"
#include "tests/support/paths.h"
#include "tests/worker/rpc/held_engine.h"
#include "worker/model/model.h"
#include "worker/rpc/worker_server.h"

namespace tidepool::test {

class TinyWorker {
 public:
  // model: a file of tests/data/tiny_models.
  explicit TinyWorker(const std::string& model = "llama_f32.gguf", const std::string& listen = "127.0.0.1:0") {
    EngineOptions options;
    options.device_kv_bytes = size_t{64} << 20;
    engine_ = *Engine::Create(options, *Model::Load(DataPath("tiny_models/" + model)), nullptr, nullptr);
    held_ = std::make_unique<HeldEngine>(engine_.get());
    server_ = *WorkerServer::Start(listen, *ServerSecurity::Open({}, listen), held_.get());
  }
  // The engine's thread may still be in a sink of held_ when clients have their answers.
  ~TinyWorker() {
    held_->Release();
    server_.reset();
    engine_.reset();
  }

  // Ends its calls at once.
  void Stop() { server_->Shutdown(absl::ZeroDuration()); }
  const std::string& address() const { return server_->address(); }
  HeldEngine& held() { return *held_; }
  EngineStats Stats() const { return engine_->Stats(); }

 private:
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<HeldEngine> held_;
  std::unique_ptr<WorkerServer> server_;
};

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_CLIENT_HTTP_TINY_WORKER_H_
