#include "cacheservice/remote/fetch_call.h"

#include <utility>

namespace tidepool {
namespace {

constexpr char kFetchMethod[] = "/tidepool.v1.CacheStore/FetchBlocks";
constexpr size_t kMostReceived = 4;  // messages that wait for the caller

}  // namespace

FetchCall::FetchCall(grpc::Channel* channel, grpc::ClientContext* context, const v1::FetchBlocksRequest* request) {
  const grpc::internal::RpcMethod method(kFetchMethod, grpc::internal::RpcMethod::SERVER_STREAMING);
  grpc::internal::ClientCallbackReaderFactory<grpc::ByteBuffer>::Create(channel, method, context, request, this);
  AddHold();
  MutexLock lock(&mutex_);
  ReadOn();
  StartCall();
}

void FetchCall::ReadOn() {
  if (reading_ || ended_ || received_.size() >= kMostReceived) return;
  reading_ = true;
  StartRead(&raw_);
}

bool FetchCall::Read(grpc::ByteBuffer* message) {
  MutexLock lock(&mutex_);
  while (received_.empty() && !ended_) changed_.Wait(&mutex_);
  if (received_.empty()) return false;
  *message = std::move(received_.front());
  received_.pop_front();
  ReadOn();
  return true;
}

grpc::Status FetchCall::Finish() {
  RemoveHold();
  MutexLock lock(&mutex_);
  while (!done_) changed_.Wait(&mutex_);
  return status_;
}

void FetchCall::OnReadDone(bool ok) {
  MutexLock lock(&mutex_);
  reading_ = false;
  ended_ = !ok;
  if (ok) received_.push_back(std::exchange(raw_, grpc::ByteBuffer()));
  ReadOn();
  changed_.SignalAll();
}

void FetchCall::OnDone(const grpc::Status& status) {
  MutexLock lock(&mutex_);
  status_ = status;
  done_ = true;
  changed_.SignalAll();
}

}  // namespace tidepool
