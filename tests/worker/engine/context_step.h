// Steps of sequences without the engine: what context, recall and backend do to each other in them.
#ifndef TIDEPOOL_TESTS_WORKER_ENGINE_CONTEXT_STEP_H_
#define TIDEPOOL_TESTS_WORKER_ENGINE_CONTEXT_STEP_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "worker/backend/backend.h"
#include "worker/engine/context.h"
#include "worker/kv/batch_recall.h"

namespace tidepool::test {

// Computes the next `count` tokens of each, without logits. The caller ends the step (Context::EndStep).
inline void ComputeStep(Backend& backend, BatchRecall& recall, absl::Span<Context* const> contexts, int32_t count,
                        bool prompt) {
  std::vector<StepSlice> slices;
  std::vector<RecallSlice> recalls;
  for (Context* const context : contexts) {
    context->BeginStep(count);
    StepSlice& slice = slices.emplace_back();
    slice.rows = &context->rows();
    slice.first_position = context->step_position();
    slice.tokens = context->StepTokens(count);
    slice.decodes = !prompt;
    recalls.push_back({&context->rows(), &context->log(), context->step_recall(), context->step_ring(),
                       slice.first_position, count, prompt});
  }
  recall.Begin(std::move(recalls));
  backend.Step(slices, &recall);
  recall.End();
}

inline void ComputeStep(Backend& backend, BatchRecall& recall, Context& context, int32_t count, bool prompt) {
  ComputeStep(backend, recall, {&context}, count, prompt);
}

// A prompt of so many tokens in one step, then as many decoding steps; step(count, prompt) computes and ends each.
inline void PromptAndSteps(Context& context, int32_t vocabulary, int prompt, int steps,
                           absl::FunctionRef<void(int count, bool prompt)> step) {
  auto add = [&](int i) { context.AddTokens({(i * 31 + 7) % vocabulary}); };
  for (int i = 0; i < prompt; ++i) add(i);
  step(prompt, true);
  context.EndPrefill();
  for (int i = 0; i < steps; ++i) {
    add(prompt + i);
    step(1, false);
  }
}

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_WORKER_ENGINE_CONTEXT_STEP_H_
