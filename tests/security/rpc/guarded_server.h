// A gRPC server that is secured as ours are and echoes every call of any method, and calls to it.
#ifndef TIDEPOOL_TESTS_SECURITY_RPC_GUARDED_SERVER_H_
#define TIDEPOOL_TESTS_SECURITY_RPC_GUARDED_SERVER_H_

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "security/rpc/channel_security.h"
#include "security/rpc/server_security.h"

namespace tidepool::test {

// Hands every message back, until the client ends the call.
class Echo : public grpc::CallbackGenericService {
 public:
  explicit Echo(const ServerSecurity* security) : security_(security) {}
  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext* call) override {
    const absl::StatusOr<Caller> caller = security_->CallerOf(*call);
    {
      MutexLock lock(&mutex_);
      last_ = caller;
    }
    calls_.fetch_add(1);
    return new Reactor;
  }
  int calls() const { return calls_; }  // that came as far as a handler
  absl::StatusOr<Caller> last() {
    MutexLock lock(&mutex_);
    return last_;
  }

 private:
  class Reactor : public grpc::ServerGenericBidiReactor {
   public:
    Reactor() { StartRead(&message_); }
    void OnReadDone(bool ok) override { ok ? StartWrite(&message_) : Finish(grpc::Status::OK); }
    void OnWriteDone(bool ok) override { ok ? StartRead(&message_) : Finish(grpc::Status::CANCELLED); }
    void OnDone() override { delete this; }

   private:
    grpc::ByteBuffer message_;
  };

  const ServerSecurity* const security_;
  std::atomic<int> calls_{0};
  Mutex mutex_;
  absl::StatusOr<Caller> last_ ABSL_GUARDED_BY(mutex_) = absl::UnknownError("nobody has called");
};

class GuardedServer {
 public:
  explicit GuardedServer(const ServerSecurityOptions& options, const std::string& listen = "127.0.0.1:0")
      : security_(*ServerSecurity::Open(options, listen)), echo_(security_.get()) {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ServerBuilder builder;
    int port = 0;
    builder.AddListeningPort(listen, security_->Credentials(), &port);
    builder.RegisterCallbackGenericService(&echo_);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr) throw std::runtime_error("cannot listen on " + listen);
    address_ = absl::StartsWith(listen, "unix:") ? listen : absl::StrCat("127.0.0.1:", port);
  }
  ~GuardedServer() { server_->Shutdown(std::chrono::system_clock::now()); }

  const std::string& address() const { return address_; }
  Echo& echo() { return echo_; }

 private:
  const std::unique_ptr<ServerSecurity> security_;
  Echo echo_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

// One stream over a channel of its own; blocking.
class EchoStream {
 public:
  EchoStream(const std::string& address, const ChannelSecurity* security, const std::string& method)
      : security_(security) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    channel_ = OpenChannel(security, address, &arguments);
    stub_ = std::make_unique<grpc::GenericStub>(channel_);
    context_.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    call_ = stub_->PrepareCall(&context_, method, &queue_);
    call_->StartCall(nullptr);
    open_ = Next();
  }
  // Sends a message and gets it back.
  bool Ask() {
    const grpc::Slice slice("hello");
    if (!open_) return false;
    call_->Write(grpc::ByteBuffer(&slice, 1), nullptr);
    if (!(open_ = Next())) return false;
    grpc::ByteBuffer answer;
    call_->Read(&answer, nullptr);
    return (open_ = Next()) && answer.Length() == slice.size();
  }
  // Ends it and says how it ended.
  grpc::Status Finish() {
    if (open_) {
      call_->WritesDone(nullptr);
      Next();
    }
    grpc::Status status;
    call_->Finish(&status, nullptr);
    Next();
    return {status.error_code(), Explained(security_, status.error_message())};
  }

 private:
  bool Next() {
    void* tag = nullptr;
    bool ok = false;
    return queue_.Next(&tag, &ok) && ok;
  }

  const ChannelSecurity* const security_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<grpc::GenericStub> stub_;
  grpc::CompletionQueue queue_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> call_;
  bool open_ = false;
};

inline grpc::Status CallMethod(const std::string& address, const ChannelSecurity* security, const std::string& method) {
  EchoStream stream(address, security, method);
  stream.Ask();
  return stream.Finish();
}

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_SECURITY_RPC_GUARDED_SERVER_H_
