// A stream to the cache service by gRPC's callback API: what comes is taken and what goes on is written on gRPC's own
// threads, so that no thread has to be woken for a message.
#ifndef TIDEPOOL_CACHESERVICE_REMOTE_LANE_STREAM_H_
#define TIDEPOOL_CACHESERVICE_REMOTE_LANE_STREAM_H_

#include <grpcpp/grpcpp.h>
#include <grpcpp/support/client_callback.h>

#include <functional>
#include <optional>
#include <utility>

#include "base/mutex.h"

namespace tidepool {

// The thread that makes it calls Finish, once. `context` outlives it.
template <typename Response>
class LaneStream final : public grpc::ClientBidiReactor<grpc::ByteBuffer, Response> {
 public:
  struct Handlers {
    // The message to be written after the one before, from one thread at a time. nullopt: writing rests until the next
    // Write.
    std::function<std::optional<grpc::ByteBuffer>()> next;
    std::function<void(Response*)> take;  // each response, in order; may call Write
    std::function<void()> end;            // no response comes any more
  };

  LaneStream(grpc::Channel* channel, const char* method, grpc::ClientContext* context, Handlers handlers)
      : handlers_(std::move(handlers)) {
    const grpc::internal::RpcMethod rpc(method, grpc::internal::RpcMethod::BIDI_STREAMING);
    grpc::internal::ClientCallbackReaderWriterFactory<grpc::ByteBuffer, Response>::Create(channel, rpc, context, this);
    this->AddHold();  // Writes may start until Finish
    this->StartRead(&response_);
    this->StartCall();
  }

  // Writes what `next` gives until it gives none. Returns before Finish is called, or is called in `take`; only while
  // writing rests.
  void Write() {
    std::optional<grpc::ByteBuffer> message = handlers_.next();
    if (!message.has_value()) return;
    {
      MutexLock lock(&mutex_);
      writing_ = true;
    }
    StartWriting(*std::move(message));
  }

  // Waits until nothing comes any more and nothing is being written. Cancel the context first to have that soon.
  grpc::Status Finish() {
    {
      MutexLock lock(&mutex_);
      while (!ended_ || writing_) changed_.Wait(&mutex_);
    }
    this->RemoveHold();
    MutexLock lock(&mutex_);
    while (!done_) changed_.Wait(&mutex_);
    return status_;
  }

  void OnReadDone(bool ok) override {
    if (ok) {
      handlers_.take(&response_);
      this->StartRead(&response_);
      return;
    }
    handlers_.end();
    MutexLock lock(&mutex_);
    ended_ = true;
    changed_.SignalAll();
  }
  void OnWriteDone(bool ok) override {
    std::optional<grpc::ByteBuffer> message;
    if (ok) message = handlers_.next();
    if (message.has_value()) return StartWriting(*std::move(message));
    MutexLock lock(&mutex_);
    writing_ = false;
    changed_.SignalAll();
  }
  void OnDone(const grpc::Status& status) override {
    MutexLock lock(&mutex_);
    status_ = status;
    done_ = true;
    changed_.SignalAll();
  }

 private:
  void StartWriting(grpc::ByteBuffer message) {
    message_ = std::move(message);
    this->StartWrite(&message_);
  }

  const Handlers handlers_;
  Response response_;         // of the read under way
  grpc::ByteBuffer message_;  // being written
  Mutex mutex_;
  CondVar changed_;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::Status status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_REMOTE_LANE_STREAM_H_
