#include "client/start_call.h"

#include <grpcpp/grpcpp.h>

#include <type_traits>
#include <utility>

#include "base/mutex.h"
#include "client/call.h"

namespace tidepool::client {
namespace {

template <typename Request>
class Call final : public GenerationCall, public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  Call(std::string address, std::shared_ptr<const ChannelSecurity> security, Request request,
       std::shared_ptr<Reader> reader, absl::Time deadline, const std::string& traceparent)
      : address_(std::move(address)),
        security_(std::move(security)),
        request_(std::move(request)),
        reader_(std::move(reader)) {
    if (deadline != absl::InfiniteFuture()) context_.set_deadline(absl::ToChronoTime(deadline));
    if (!traceparent.empty()) context_.AddMetadata("traceparent", traceparent);
  }

  // `self` keeps the call until OnDone. The hold is for reads that Next() and Cancel() start: it ends with the last
  // read.
  void Start(v1::Generation::Stub* stub, std::shared_ptr<Call> self) {
    self_ = std::move(self);
    if constexpr (std::is_same_v<Request, v1::ChatRequest>) {
      stub->async()->Chat(&context_, &request_, this);
    } else {
      stub->async()->Generate(&context_, &request_, this);
    }
    AddHold();
    StartRead(&response_);
    StartCall();
  }

  void Next() override {
    MutexLock lock(&mutex_);
    ReadIfIdle();
  }

  void Cancel() override {
    MutexLock lock(&mutex_);
    cancelled_ = true;
    context_.TryCancel();
    ReadIfIdle();  // the end of the stream is seen by a read only
  }

  void OnReadDone(bool ok) override {
    if (!ok) return RemoveHold();
    v1::GenerateResponse response = std::move(response_);
    {
      MutexLock lock(&mutex_);
      if (response.has_finished()) finished_ = std::move(*response.mutable_finished());
      idle_ = true;
      if (cancelled_ || response.has_finished()) return ReadIfIdle();
    }
    reader_->OnResponse(std::move(response));
  }

  void OnDone(const grpc::Status& status) override {
    if (!status.ok()) {
      reader_->OnDone(FromGrpc(status, address_, security_.get()));
    } else {
      reader_->OnDone(std::move(finished_));
    }
    reader_.reset();
    self_.reset();  // may delete this
  }

 private:
  void ReadIfIdle() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!idle_) return;
    idle_ = false;
    StartRead(&response_);
  }

  const std::string address_;
  const std::shared_ptr<const ChannelSecurity> security_;
  const Request request_;
  std::shared_ptr<Reader> reader_;
  grpc::ClientContext context_;
  std::shared_ptr<Call> self_;
  v1::GenerateResponse response_;  // of the read under way
  Mutex mutex_;
  v1::Finished finished_;                      // written by reads, read when they are over
  bool idle_ ABSL_GUARDED_BY(mutex_) = false;  // the reader has a response and has not asked for the next one
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
};

template <typename Request>
std::shared_ptr<GenerationCall> Start(v1::Generation::Stub* stub, const std::string& address,
                                      std::shared_ptr<const ChannelSecurity> security, Request request,
                                      std::shared_ptr<GenerationCall::Reader> reader, absl::Time deadline,
                                      const std::string& traceparent) {
  auto call = std::make_shared<Call<Request>>(address, std::move(security), std::move(request), std::move(reader),
                                              deadline, traceparent);
  call->Start(stub, call);
  return call;
}

}  // namespace

std::shared_ptr<GenerationCall> StartCall(v1::Generation::Stub* stub, const std::string& address,
                                          std::shared_ptr<const ChannelSecurity> security, v1::GenerateRequest request,
                                          std::shared_ptr<GenerationCall::Reader> reader, absl::Time deadline,
                                          const std::string& traceparent) {
  return Start(stub, address, std::move(security), std::move(request), std::move(reader), deadline, traceparent);
}

std::shared_ptr<GenerationCall> StartCall(v1::Generation::Stub* stub, const std::string& address,
                                          std::shared_ptr<const ChannelSecurity> security, v1::ChatRequest request,
                                          std::shared_ptr<GenerationCall::Reader> reader, absl::Time deadline,
                                          const std::string& traceparent) {
  return Start(stub, address, std::move(security), std::move(request), std::move(reader), deadline, traceparent);
}

void StartEstimate(v1::Generation::Stub* stub, const std::string& address,
                   std::shared_ptr<const ChannelSecurity> security, v1::EstimateRequest request,
                   std::function<void(absl::StatusOr<v1::EstimateResponse>)> done, absl::Time deadline) {
  struct Estimate {
    grpc::ClientContext context;
    v1::EstimateRequest request;
    v1::EstimateResponse response;
  };
  auto call = std::make_shared<Estimate>();
  call->request = std::move(request);
  call->context.set_deadline(absl::ToChronoTime(deadline));
  stub->async()->Estimate(
      &call->context, &call->request, &call->response,
      [call, address, security = std::move(security), done = std::move(done)](const grpc::Status& status) {
        if (!status.ok()) return done(FromGrpc(status, address, security.get()));
        done(std::move(call->response));
      });
}

}  // namespace tidepool::client
