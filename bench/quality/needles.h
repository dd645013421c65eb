// Suite `needles`: the true answer's tokens are scored, because a small model finds few of them even with its full
// cache. The question is either the next turn (question-agnostic: the context was compressed without it), asked of a
// copy of the session, or the end of the one turn that is compressed (question-aware).
#ifndef TIDEPOOL_BENCH_QUALITY_NEEDLES_H_
#define TIDEPOOL_BENCH_QUALITY_NEEDLES_H_

#include <string>
#include <vector>

#include "bench/quality/bench_engine.h"
#include "bench/quality/cell.h"
#include "bench/quality/needle_tasks.h"

namespace tidepool::quality {

// metrics: questions; nll, nats per token of the answers, and nll_error, its standard error over questions; first, the
// share of their tokens that the model ranks first; exact, the share of answers whose tokens all are.
Cell MeasureNeedles(BenchEngine& engine, const std::vector<NeedleTask>& tasks, bool visible, const Setting& setting);

}  // namespace tidepool::quality

#endif  // TIDEPOOL_BENCH_QUALITY_NEEDLES_H_
