// The most slot pages that a sequence can need: what admission reserves before it starts, and what `tidepool size`
// counts with.
#ifndef TIDEPOOL_WORKER_ENGINE_PAGES_NEEDED_H_
#define TIDEPOOL_WORKER_ENGINE_PAGES_NEEDED_H_

#include <cstdint>

#include "policies/retain/budget_split.h"
#include "policies/retain/compression_spec.h"
#include "worker/kv/repetition.h"

namespace tidepool {

struct SequenceSize {
  int64_t before = 0;        // tokens that a resumed session has
  int64_t prompt = 0;        // tokens of this turn
  int64_t most = 0;          // tokens in the end: before, prompt and answer
  bool resumed = false;      // those before are not computed again
  int64_t longest_head = 0;  // rows of the resumed context's longest kv head
};

// words: those around a repeated prompt; null: none.
int64_t PagesNeeded(const CompressionSpec& spec, const DeviceShape& shape, const SequenceSize& size,
                    const RepetitionWords* words);

}  // namespace tidepool

#endif  // TIDEPOOL_WORKER_ENGINE_PAGES_NEEDED_H_
