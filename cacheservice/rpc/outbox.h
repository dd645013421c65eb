// The write side of a callback-API stream: messages queue up here, one is under way at a time, and the stream ends when
// it has been asked to, nothing is queued and no work is pending. Reactors derive their writing from it.
#ifndef TIDEPOOL_CACHESERVICE_RPC_OUTBOX_H_
#define TIDEPOOL_CACHESERVICE_RPC_OUTBOX_H_

#include <grpcpp/grpcpp.h>

#include <deque>
#include <utility>

#include "base/mutex.h"

namespace tidepool {

// Reactor: anything with StartWrite(const Response*) and Finish(grpc::Status). All calls may come from any thread.
template <typename Reactor, typename Response>
class Outbox {
 public:
  explicit Outbox(Reactor* reactor) : reactor_(reactor) {}

  // Work that will Send and then EndWork: the stream does not finish before.
  void BeginWork() {
    MutexLock lock(&mutex_);
    ++working_;
  }
  void Send(Response response) {
    MutexLock lock(&mutex_);
    if (broken_) return;
    queue_.push_back(std::move(response));
    WriteNext();
  }
  void EndWork() {
    MutexLock lock(&mutex_);
    --working_;
    FinishIfDone();
  }
  // OnWriteDone. False: the peer is gone, what is queued is dropped.
  void OnWriteDone(bool ok) {
    MutexLock lock(&mutex_);
    writing_ = false;
    queue_.pop_front();
    if (!ok) {
      broken_ = true;
      queue_.clear();
    }
    WriteNext();
    FinishIfDone();
  }
  // The stream ends with `status` once nothing is left to do. The first call counts.
  void Close(grpc::Status status) {
    MutexLock lock(&mutex_);
    if (closing_) return;
    closing_ = true;
    status_ = std::move(status);
    FinishIfDone();
  }
  // Queued and unsent; for holding back what would add to it.
  size_t queued() const {
    MutexLock lock(&mutex_);
    return queue_.size();
  }

 private:
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (writing_ || queue_.empty()) return;
    writing_ = true;
    reactor_->StartWrite(&queue_.front());
  }
  void FinishIfDone() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!closing_ || finished_ || working_ > 0 || writing_ || !queue_.empty()) return;
    finished_ = true;
    reactor_->Finish(status_);
  }

  Reactor* const reactor_;
  mutable Mutex mutex_;
  std::deque<Response> queue_ ABSL_GUARDED_BY(mutex_);
  int working_ ABSL_GUARDED_BY(mutex_) = 0;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;
  bool closing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::Status status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RPC_OUTBOX_H_
