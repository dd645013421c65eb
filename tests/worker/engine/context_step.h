// A step of one sequence without the engine: what context, recall and backend do to each other in it.
#ifndef TIDEPOOL_TESTS_WORKER_ENGINE_CONTEXT_STEP_H_
#define TIDEPOOL_TESTS_WORKER_ENGINE_CONTEXT_STEP_H_

#include <cstdint>

#include "worker/backend/backend.h"
#include "worker/engine/context.h"
#include "worker/kv/batch_recall.h"

namespace tidepool::test {

// Computes the next `count` tokens, without logits. The caller ends the step (Context::EndStep).
inline void ComputeStep(Backend& backend, BatchRecall& recall, Context& context, int32_t count, bool prompt) {
  context.BeginStep(count);
  StepSlice slice;
  slice.rows = &context.rows();
  slice.first_position = context.step_position();
  slice.tokens = context.StepTokens(count);
  slice.decodes = !prompt;
  recall.Begin({{&context.rows(), &context.log(), context.step_recall(), context.step_ring(), slice.first_position,
                 count, prompt}});
  backend.Step({slice}, &recall);
  recall.End();
}

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_WORKER_ENGINE_CONTEXT_STEP_H_
