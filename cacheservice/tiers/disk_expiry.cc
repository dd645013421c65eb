#include "cacheservice/tiers/disk_expiry.h"

#include <algorithm>
#include <chrono>

namespace tidepool {
namespace {

constexpr absl::Duration kMostBetweenLooks = absl::Minutes(1);
// After each little, which may have stored 4 MiB anew: some 16 MiB in a second, whatever there is to do.
constexpr absl::Duration kPause = absl::Milliseconds(250);

}  // namespace

DiskExpiry::DiskExpiry(absl::Duration ttl, TenantDisks* disk, const MemoryTier* memory)
    : ttl_(ttl), disk_(disk), memory_(memory) {
  if (ttl_ > absl::ZeroDuration()) thread_ = std::thread([this] { Run(); });
}

DiskExpiry::~DiskExpiry() {
  {
    MutexLock lock(&mutex_);
    closing_ = true;
    changed_.SignalAll();
  }
  if (thread_.joinable()) thread_.join();
}

bool DiskExpiry::ExpireSome() {
  return disk_->ExpireSome(ttl_, [this](const BlockId& id, absl::Time since) { return memory_->UsedSince(id, since); });
}

void DiskExpiry::ExpireAll() {
  while (ttl_ > absl::ZeroDuration() && ExpireSome()) {
  }
}

bool DiskExpiry::Pause(absl::Duration pause) {
  const auto until = std::chrono::steady_clock::now() + absl::ToChronoNanoseconds(pause);
  MutexLock lock(&mutex_);
  while (!closing_ && changed_.WaitUntil(&mutex_, until)) {
  }
  return !closing_;
}

void DiskExpiry::Run() {
  while (Pause(std::min(ttl_ / 64, kMostBetweenLooks))) {
    while (ExpireSome()) {
      if (!Pause(kPause)) return;
    }
  }
}

}  // namespace tidepool
