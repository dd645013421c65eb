#include "cacheservice/remote/fetch_call.h"

#include <utility>

namespace tidepool {
namespace {

constexpr char kFetchMethod[] = "/tidepool.v1.CacheStore/FetchBlocks";

}  // namespace

FetchCall::FetchCall(grpc::Channel* channel, grpc::ClientContext* context, const v1::FetchBlocksRequest* request,
                     Take take)
    : context_(context), take_(std::move(take)) {
  const grpc::internal::RpcMethod method(kFetchMethod, grpc::internal::RpcMethod::SERVER_STREAMING);
  grpc::internal::ClientCallbackReaderFactory<grpc::ByteBuffer>::Create(channel, method, context, request, this);
  StartRead(&message_);
  StartCall();
}

grpc::Status FetchCall::Finish() {
  MutexLock lock(&mutex_);
  while (!done_) changed_.Wait(&mutex_);
  return status_;
}

void FetchCall::OnReadDone(bool ok) {
  if (!ok) return;
  if (!take_(&message_)) return context_->TryCancel();
  StartRead(&message_);
}

void FetchCall::OnDone(const grpc::Status& status) {
  MutexLock lock(&mutex_);
  status_ = status;
  done_ = true;
  changed_.SignalAll();
}

}  // namespace tidepool
