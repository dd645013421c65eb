// Runs a trace through replacement policies and counts prefix hits: a block counts only while all earlier blocks of its
// request are held, because only then can its keys and values be used.
#ifndef TIDEPOOL_CACHESERVICE_REPLAY_REPLAY_H_
#define TIDEPOOL_CACHESERVICE_REPLAY_REPLAY_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "cacheservice/replay/replay_policy.h"
#include "cacheservice/replay/trace.h"

namespace tidepool {

struct NamedPolicy {
  const char* name;
  std::unique_ptr<ReplayPolicy> (*make)(size_t blocks);
};

// In the order of the tables; the tier's default is the last but the optimum.
const std::vector<NamedPolicy>& ReplayPolicies();

class Replay {
 public:
  // `trace` outlives the object.
  explicit Replay(const Trace* trace);

  // Prefix hits among trace.references(). `policy` is empty.
  uint64_t Hits(ReplayPolicy* policy) const;
  // Of a cache that never drops anything.
  uint64_t MostHits() const;

 private:
  const Trace* const trace_;
  std::vector<Reference> references_;  // of all requests in order
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_REPLAY_REPLAY_H_
