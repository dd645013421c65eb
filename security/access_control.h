// The access file of a running service: says who a caller is. Looks at the file at most once a second and takes over
// what has changed; a file that is bad or gone leaves in force what was there, and is reported in the log. Thread-safe.
#ifndef TIDEPOOL_SECURITY_ACCESS_CONTROL_H_
#define TIDEPOOL_SECURITY_ACCESS_CONTROL_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "base/mutex.h"
#include "security/access_table.h"
#include "security/caller.h"
#include "security/file_stamp.h"

namespace tidepool {

class AccessControl {
 public:
  // An empty path: everybody is Caller::Anyone. InvalidArgument naming the file and the line.
  static absl::StatusOr<std::unique_ptr<AccessControl>> Open(const std::string& path,
                                                             std::function<absl::Time()> clock = absl::Now);

  bool open_to_all() const { return path_.empty(); }
  // `authorization`: that header's value, nullopt when there is none. `certificate_names`: of the peer's verified
  // certificate. A header counts before a certificate. Unauthenticated: says what is missing.
  absl::StatusOr<Caller> Identify(std::optional<std::string_view> authorization,
                                  absl::Span<const std::string> certificate_names);
  RateLimits LimitsOf(std::string_view tenant);

 private:
  AccessControl(std::string path, std::function<absl::Time()> clock)
      : path_(std::move(path)), clock_(std::move(clock)) {}
  absl::Status Load() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::shared_ptr<const AccessTable> Table();

  const std::string path_;
  const std::function<absl::Time()> clock_;
  Mutex mutex_;
  absl::Time looked_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();
  FileStamp stamp_ ABSL_GUARDED_BY(mutex_);  // of the file when it was last read, good or bad
  std::shared_ptr<const AccessTable> table_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tidepool

#endif  // TIDEPOOL_SECURITY_ACCESS_CONTROL_H_
