// Suite `lookup`: a model whose weights look keys up exactly (tests/data/lookup_model), so that with the full cache
// every answer is right, and a row that is missing is an answer that is wrong. The context is compressed before any
// question is known; each question goes on from a copy of its session, in two ways:
//
//   turn    the key is the next turn, one token is generated: its token must be the key's value.
//   step 1  the key stands in the middle of an answer (a filler turn, then the key is fed in place of a sampled token),
//           where asynchronous recall waits for nothing: what the model would say next must be the value.
//   step 2  the same with the key fed twice in a row. Now two rows match it, that of the value and that of the second
//           key, which followed the first; so the best token other than the key must be the value. This is what
//           "right after at most two decode steps" means: rows that the first step asked for may be used by the second.
//           Counted when step 1 or step 2 is right.
//
// A step of this model takes a fraction of a millisecond, less than any fetch from a service; a real model's takes 5 to
// 30. Steps in the middle of an answer are therefore slowed down to `pace`.
#ifndef TIDEPOOL_BENCH_QUALITY_LOOKUP_H_
#define TIDEPOOL_BENCH_QUALITY_LOOKUP_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "bench/quality/bench_engine.h"
#include "bench/quality/cell.h"

namespace tidepool::quality {

struct LookupCase {
  std::vector<int32_t> context;
  std::vector<std::pair<int32_t, int32_t>> questions;  // key, value
};

std::vector<LookupCase> ReadLookupCases(const std::string& path);

// metrics: questions, turn, step1, step2.
Cell MeasureLookup(BenchEngine& engine, const LookupCase& lookup, const Setting& setting, absl::Duration pace);

}  // namespace tidepool::quality

#endif  // TIDEPOOL_BENCH_QUALITY_LOOKUP_H_
