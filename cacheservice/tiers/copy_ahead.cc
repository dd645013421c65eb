#include "cacheservice/tiers/copy_ahead.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/time/clock.h"

namespace tidepool {
namespace {

constexpr uint64_t kBatchBytes = uint64_t{4} << 20;
// Of one batch. A part of a cluster may be failing over; values that it refuses for longer must not hold up the others.
constexpr int kAttempts = 6;
constexpr absl::Duration kFirstPause = absl::Milliseconds(50);  // between attempts; doubles

}  // namespace

CopyAhead::CopyAhead(DiskTier* disk, RemoteTier* remote) : disk_(disk), remote_(remote) {
  disk_->OnWrite([this] { Wake(); });
  thread_ = std::thread([this] { Run(); });
}

CopyAhead::~CopyAhead() {
  {
    MutexLock lock(&mutex_);
    closing_ = true;
    wake_.SignalAll();
  }
  thread_.join();
}

void CopyAhead::Wake() {
  MutexLock lock(&mutex_);
  work_ = true;
  wake_.Signal();
}

bool CopyAhead::WaitUntil(absl::Time time) {
  MutexLock lock(&mutex_);
  for (absl::Time now = absl::Now(); !closing_ && now < time; now = absl::Now()) {
    wake_.WaitUntil(&mutex_, std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(time - now));
  }
  return !closing_;
}

void CopyAhead::Run() {
  while (true) {
    {
      MutexLock lock(&mutex_);
      while (!work_ && !closing_) wake_.Wait(&mutex_);
      if (closing_) return;
      work_ = false;
    }
    while (true) {
      // Read when it can be written, so that a pause holds no values.
      if (!WaitUntil(remote_->WritesAllowedAt())) return;
      DiskTier::Leaving batch = disk_->ReadLeaving(kBatchBytes);
      if (batch.mark == 0) break;
      CopyBatch(std::move(batch));
    }
  }
}

void CopyAhead::CopyBatch(DiskTier::Leaving batch) {
  std::vector<DiskPut>& values = batch.values;
  absl::Duration pause = kFirstPause;
  for (int attempt = 0; attempt < kAttempts && !values.empty(); ++attempt, pause = 2 * pause) {
    const absl::Time earliest = attempt == 0 ? absl::InfinitePast() : absl::Now() + pause;
    if (!WaitUntil(std::max(earliest, remote_->WritesAllowedAt()))) return;
    const std::vector<absl::Status> stored = remote_->Put(values);
    size_t left = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      if (!stored[i].ok()) values[left++] = values[i];
    }
    values.resize(left);
  }
  if (!values.empty()) remote_->CountWriteFailures(values.size());
  disk_->MarkCopied(batch.mark);
}

}  // namespace tidepool
