// Keeps the engine's books on requests: where their time went, how they ended, what their policies did. Engine thread
// only.
#ifndef TIDEPOOL_WORKER_ENGINE_ENGINE_METER_H_
#define TIDEPOOL_WORKER_ENGINE_ENGINE_METER_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "worker/engine/engine_stats.h"
#include "worker/engine/generation.h"

namespace tidepool {

class EngineMeter {
 public:
  // Where the tokens of a context come from that are not computed again.
  enum class Source { kNone, kResident, kRestored, kPrefix };

  // `stats` outlives the meter.
  explicit EngineMeter(EngineStats* stats) : stats_(stats) {}

  // It has been started (Generation::Start). looked_up: stored keys and values were looked for.
  void Admitted(Generation& generation, Source source, bool looked_up);
  // It has got one more token.
  void Drew(Generation& generation);
  // It is over; its usage is recorded.
  void Ended(const Generation& generation, const absl::Status& status, FinishReason reason);

  // Of the policy that an admitted generation has; valid until the next Admitted.
  RecallMeter* RecallOf(const Generation& generation);

 private:
  int PolicyIndex(const std::string& preset);

  EngineStats* const stats_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_ENGINE_ENGINE_METER_H_
