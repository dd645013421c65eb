// Audit lines in the log: who did what, to what, with which result. One line for each mutation by an admin, whatever
// came of it, and one for each call that was refused.
//
//   2026-01-31T12:00:00.000Z I audit: caller="token 1a2b3c4d" tenant="*" call="/tidepool.v1.CacheAdmin/DropSession"
//       target="acme/chat-7" result=OK
#ifndef TIDEPOOL_SECURITY_AUDIT_H_
#define TIDEPOOL_SECURITY_AUDIT_H_

#include <cstdint>
#include <functional>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "security/caller.h"

namespace tidepool {

// Of a mutation. method: /package.Service/Method.
void Audit(const Caller& caller, std::string_view method, std::string_view target, const absl::Status& result);

// Calls that were refused. Anybody can cause them, so only the first few of a second are written; the next line that is
// counts the others. Thread-safe.
class DenialLog {
 public:
  explicit DenialLog(std::function<absl::Time()> clock = absl::Now) : clock_(std::move(clock)) {}
  // caller: null when it is not known who he is. False: not written.
  bool Add(const Caller* caller, std::string_view method, const absl::Status& why);

  static constexpr int kMostPerSecond = 10;

 private:
  const std::function<absl::Time()> clock_;
  Mutex mutex_;
  absl::Time second_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  int written_ ABSL_GUARDED_BY(mutex_) = 0;  // in that second
  int64_t left_out_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace tidepool

#endif  // TIDEPOOL_SECURITY_AUDIT_H_
