#include "base/mutex_checks.h"

#include "absl/synchronization/mutex.h"

namespace tidepool {

void SkipMutexChecks() { absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore); }

}  // namespace tidepool
