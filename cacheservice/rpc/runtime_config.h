// The flags in force of a process with a cache, as CacheAdmin shows them, and those of them that can be changed while
// it runs: --memory-bytes, --disk-bytes, --log-level. Thread-safe.
#ifndef TIDEPOOL_CACHESERVICE_RPC_RUNTIME_CONFIG_H_
#define TIDEPOOL_CACHESERVICE_RPC_RUNTIME_CONFIG_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/flags.h"
#include "base/mutex.h"
#include "cacheservice/tiers/tiered_store.h"

namespace tidepool {

class RuntimeConfig {
 public:
  struct Entry {
    FlagFacts flag;
    bool changeable = false;
    bool changed = false;  // since the start
  };

  // `blocks` outlives it.
  RuntimeConfig(TieredStore* blocks, std::vector<FlagFacts> flags);
  std::vector<Entry> Entries() const;
  // `name` with dashes or underscores. InvalidArgument: no such flag, or the value; FailedPrecondition: only at a
  // start.
  absl::StatusOr<Entry> Set(std::string_view name, const std::string& value);

 private:
  TieredStore* const blocks_;
  mutable Mutex mutex_;  // one change at a time
  std::vector<Entry> entries_ ABSL_GUARDED_BY(mutex_);
};

// A value for people: of a URL without its user and password.
std::string WithoutPassword(const std::string& value);

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_RPC_RUNTIME_CONFIG_H_
