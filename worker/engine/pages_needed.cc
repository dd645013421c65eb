#include "worker/engine/pages_needed.h"

#include <algorithm>

#include "policies/retain/score_method.h"
#include "worker/backend/backend.h"
#include "worker/kv/compressor.h"

namespace tidepool {

int64_t PagesNeeded(const CompressionSpec& spec, const DeviceShape& shape, const SequenceSize& size,
                    const RepetitionWords* words) {
  const int64_t tokens = size.before + size.prompt, heads = shape.heads();
  // Rows of all layers and kv heads: while the prompt comes in, and while decoding.
  const int64_t decoding = Compressor::MostRows(spec, shape, size.most, size.most - tokens);
  int64_t prefill = tokens * heads;
  if (size.resumed) {
    const int64_t resident = std::min(size.longest_head * heads, size.before * heads);
    prefill = std::max(resident, Compressor::MostRows(spec, shape, size.before, 0)) + size.prompt * heads;
  }
  if (spec.prefill == PrefillMode::kChunked) {  // all chunks are brought within the budget of the whole prompt
    CompressionSpec bound = spec;
    bound.decode_budget = DecodeBudget::kHeld;
    int64_t chunked = Compressor::MostRows(bound, shape, tokens, 0);
    if (size.resumed) chunked = std::max(chunked, size.longest_head * heads);
    prefill = std::min(prefill, chunked + spec.prefill_chunk * heads);
  }
  int64_t rows = std::min(std::max(prefill, decoding), size.most * heads);
  const ScoreMethod* score = FindScore(spec.score);
  if (const int piece = score != nullptr ? score->RepeatedTokens(spec) : 0; piece > 0 && words != nullptr) {
    const auto repeated = static_cast<int32_t>(std::min<int64_t>(piece, tokens));
    rows = std::max(rows, prefill + Repetition::MostTokens(*words, repeated) * heads);
  }
  return rows / kPageSlots + 2 * heads;
}

}  // namespace tidepool
