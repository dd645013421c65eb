// What a process does when it locks a mutex of Abseil's.
#ifndef TIDEPOOL_BASE_MUTEX_CHECKS_H_
#define TIDEPOOL_BASE_MUTEX_CHECKS_H_

namespace tidepool {

// Debian builds Abseil without NDEBUG: each lock of a mutex, and gRPC takes tens for a message, is entered in a graph
// in search of deadlocks. Leaves that out. For a main, before it has threads.
void SkipMutexChecks();

}  // namespace tidepool

#endif  // TIDEPOOL_BASE_MUTEX_CHECKS_H_
