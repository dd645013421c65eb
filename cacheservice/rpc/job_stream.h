// A call of an administrator that takes long and says how far it is: the job runs on a thread of its own and ends with
// the call, whoever of the two ends first. One job of a kind at a time.
#ifndef TIDEPOOL_CACHESERVICE_RPC_JOB_STREAM_H_
#define TIDEPOOL_CACHESERVICE_RPC_JOB_STREAM_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/background.h"
#include "base/mutex.h"
#include "cacheservice/rpc/cache_store_service.h"

namespace tidepool {

// What a job sees of its call.
class JobControl {
 public:
  bool cancelled() const { return cancelled_.load(); }
  void Cancel() {
    MutexLock lock(&mutex_);
    cancelled_ = true;
    changed_.SignalAll();
  }
  // False: cancelled.
  bool WaitUntil(absl::Time time) {
    MutexLock lock(&mutex_);
    for (absl::Time now = absl::Now(); !cancelled_ && now < time; now = absl::Now()) {
      changed_.WaitUntil(&mutex_, std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(time - now));
    }
    return !cancelled_;
  }

 private:
  std::atomic<bool> cancelled_{false};
  Mutex mutex_;
  CondVar changed_;
};

// Deletes itself when the call is done.
template <typename Progress>
class JobStream final : public grpc::ServerWriteReactor<Progress> {
 public:
  using Report = std::function<void(const Progress&)>;
  using Job = std::function<absl::Status(JobControl& control, const Report& report)>;

  // `busy`: set while a job of this kind runs; FailedPrecondition saying `name` when it is. Both outlive the call.
  JobStream(Background* thread, std::atomic<bool>* busy, const std::string& name, Job job) : busy_(busy) {
    if (busy_->exchange(true)) {
      End(absl::FailedPreconditionError(name + ": another one is under way"));
      return;
    }
    thread->Run([this, job = std::move(job)] {
      absl::Status status = job(control_, [this](const Progress& progress) { Tell(progress); });
      busy_->store(false);
      if (control_.cancelled()) status = absl::CancelledError("cancelled");
      End(status);
    });
  }
  // One that is refused.
  explicit JobStream(const absl::Status& refused) : busy_(nullptr) { End(refused); }

  void OnCancel() override { control_.Cancel(); }
  void OnDone() override { delete this; }
  void OnWriteDone(bool ok) override {
    std::optional<grpc::Status> end;
    {
      MutexLock lock(&mutex_);
      writing_ = false;
      broken_ = broken_ || !ok;
      WriteNext();
      end = TakeEnd();
    }
    if (end.has_value()) this->Finish(*end);
  }

 private:
  // The newest state is written: who reads slowly sees fewer of them.
  void Tell(const Progress& progress) ABSL_LOCKS_EXCLUDED(mutex_) {
    MutexLock lock(&mutex_);
    next_ = progress;
    WriteNext();
  }
  void End(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mutex_) {
    std::optional<grpc::Status> end;
    {
      MutexLock lock(&mutex_);
      end_ = ToGrpc(status);
      end = TakeEnd();
    }
    if (end.has_value()) this->Finish(*end);
  }
  void WriteNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (writing_ || broken_ || !next_.has_value()) return;
    message_ = *std::exchange(next_, std::nullopt);
    writing_ = true;
    this->StartWrite(&message_);
  }
  // Once, when nothing more is to be written: the caller finishes the call then, without the mutex.
  std::optional<grpc::Status> TakeEnd() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (writing_ || (next_.has_value() && !broken_)) return std::nullopt;
    return std::exchange(end_, std::nullopt);
  }

  std::atomic<bool>* const busy_;
  JobControl control_;
  Mutex mutex_;
  Progress message_ ABSL_GUARDED_BY(mutex_);
  std::optional<Progress> next_ ABSL_GUARDED_BY(mutex_);
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<grpc::Status> end_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RPC_JOB_STREAM_H_
