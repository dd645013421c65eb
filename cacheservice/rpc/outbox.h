// The write side of a callback-API stream: messages queue up here, one is under way at a time, and the stream ends when
// it has been asked to, nothing is queued and no work is pending. Reactors derive their writing from it.
#ifndef TIDEPOOL_CACHESERVICE_RPC_OUTBOX_H_
#define TIDEPOOL_CACHESERVICE_RPC_OUTBOX_H_

#include <grpcpp/grpcpp.h>

#include <deque>
#include <utility>

#include "base/mutex.h"
#include "cacheservice/rpc/raw_message.h"

namespace tidepool {

// Reactor: anything with StartWrite(const grpc::ByteBuffer*) and Finish(grpc::Status). All calls may come from any
// thread.
template <typename Reactor, typename Response>
class Outbox {
 public:
  explicit Outbox(Reactor* reactor) : reactor_(reactor) {}

  // Work that will Send and then EndWork: the stream does not finish before.
  void BeginWork() {
    MutexLock lock(&mutex_);
    ++working_;
  }
  void Send(const Response& response) { SendRaw(ToRaw(response)); }
  void SendRaw(grpc::ByteBuffer bytes) {
    MutexLock lock(&mutex_);
    if (broken_) return;
    queued_bytes_ += bytes.Length();
    queue_.push_back(std::move(bytes));
    WriteNext();
  }
  // The reactor may be gone when this returns.
  void EndWork() {
    bool finish = false;
    {
      MutexLock lock(&mutex_);
      --working_;
      finish = TakeFinish();
    }
    if (finish) reactor_->Finish(status_);
  }
  // OnWriteDone. False: the peer is gone, what is queued is dropped.
  void OnWriteDone(bool ok) {
    bool finish = false;
    {
      MutexLock lock(&mutex_);
      writing_ = false;
      queued_bytes_ -= front_bytes_;
      queue_.pop_front();
      if (!ok) {
        broken_ = true;
        queue_.clear();
        queued_bytes_ = 0;
      }
      WriteNext();
      finish = TakeFinish();
    }
    if (finish) reactor_->Finish(status_);
  }
  // The stream ends with `status` once nothing is left to do. The first call counts.
  void Close(grpc::Status status) {
    bool finish = false;
    {
      MutexLock lock(&mutex_);
      if (closing_) return;
      closing_ = true;
      status_ = std::move(status);
      finish = TakeFinish();
    }
    if (finish) reactor_->Finish(status_);
  }
  // Of messages that the peer has not taken; for holding back what would add to it.
  size_t queued_bytes() const {
    MutexLock lock(&mutex_);
    return queued_bytes_;
  }

 private:
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (writing_ || queue_.empty()) return;
    writing_ = true;
    front_bytes_ = queue_.front().Length();  // writing may empty it
    reactor_->StartWrite(&queue_.front());
  }
  // True once, for the caller that then finishes. Never under the mutex: OnDone, on another thread, frees it.
  bool TakeFinish() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!closing_ || finished_ || working_ > 0 || writing_ || !queue_.empty()) return false;
    finished_ = true;
    return true;
  }

  Reactor* const reactor_;
  mutable Mutex mutex_;
  std::deque<grpc::ByteBuffer> queue_ ABSL_GUARDED_BY(mutex_);
  size_t front_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  size_t queued_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  int working_ ABSL_GUARDED_BY(mutex_) = 0;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::Status status_;  // written once, under the mutex, before anybody may finish
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RPC_OUTBOX_H_
