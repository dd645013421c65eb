// Traces of requests of known kinds, the same for the same name and seed: for trying replacement on what the given
// trace does not hold.
#ifndef TIDEPOOL_BENCH_REPLAY_SYNTHETIC_TRACES_H_
#define TIDEPOOL_BENCH_REPLAY_SYNTHETIC_TRACES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace tidepool::bench {

struct SyntheticRequest {
  double second = 0;
  std::vector<uint64_t> blocks;
};

struct SyntheticKind {
  const char* name;
  const char* what;
};
const std::vector<SyntheticKind>& SyntheticKinds();

// Some ten thousand requests within an hour, in order of time. InvalidArgument naming the kinds.
absl::StatusOr<std::vector<SyntheticRequest>> MakeSyntheticTrace(const std::string& kind, uint32_t seed);

}  // namespace tidepool::bench

#endif  // TIDEPOOL_BENCH_REPLAY_SYNTHETIC_TRACES_H_
