#include "cacheservice/rpc/drain_stream.h"

#include <utility>

#include "cacheservice/rpc/cache_store_service.h"

namespace tidepool {

DrainStream::DrainStream(CacheContext* context, bool all_blocks) : context_(context) {
  if (context_->drain == nullptr) {
    End(ToGrpc(absl::FailedPreconditionError("drain: this pod knows no others; tidepool-cache --peers names them")));
    return;
  }
  {
    MutexLock lock(&mutex_);
    mine_ = true;
  }
  absl::Status started = context_->drain->Start(
      all_blocks, [this](const PodDrain::Progress& progress) { Report(progress); },
      [this](const absl::Status& status) { End(ToGrpc(status)); });
  if (started.ok()) return;
  {
    MutexLock lock(&mutex_);
    mine_ = false;
  }
  End(ToGrpc(started));
}

void DrainStream::OnCancel() {
  MutexLock lock(&mutex_);
  if (mine_ && !end_.has_value()) context_->drain->Cancel();
}

void DrainStream::Report(const PodDrain::Progress& progress) {
  MutexLock lock(&mutex_);
  v1::DrainProgress& message = next_.emplace();
  message.set_sessions(static_cast<uint64_t>(progress.sessions));
  message.set_sessions_copied(static_cast<uint64_t>(progress.sessions_copied));
  message.set_sessions_failed(static_cast<uint64_t>(progress.sessions_failed));
  message.set_blocks(static_cast<uint64_t>(progress.blocks));
  message.set_blocks_copied(static_cast<uint64_t>(progress.blocks_copied));
  message.set_bytes_copied(static_cast<uint64_t>(progress.bytes_copied));
  message.set_blocks_failed(static_cast<uint64_t>(progress.blocks_failed));
  message.set_drained(progress.drained);
  WriteNext();
}

void DrainStream::WriteNext() {
  if (busy_ || broken_ || !next_.has_value()) return;
  writing_ = *std::exchange(next_, std::nullopt);
  busy_ = true;
  StartWrite(&writing_);
}

bool DrainStream::TakeFinish() {
  if (finished_ || busy_ || !end_.has_value() || (next_.has_value() && !broken_)) return false;
  finished_ = true;
  return true;
}

void DrainStream::OnWriteDone(bool ok) {
  std::optional<grpc::Status> end;
  {
    MutexLock lock(&mutex_);
    busy_ = false;
    broken_ = broken_ || !ok;
    WriteNext();
    if (TakeFinish()) end = *end_;
  }
  if (end.has_value()) Finish(*end);
}

void DrainStream::End(grpc::Status status) {
  std::optional<grpc::Status> end;
  {
    MutexLock lock(&mutex_);
    end_ = std::move(status);
    if (TakeFinish()) end = *end_;
  }
  if (end.has_value()) Finish(*end);
}

}  // namespace tidepool
