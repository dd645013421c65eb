// What `tidepool inspect` looks at: one prompt, and if wanted a question after it, through an engine in this process
// under one policy after another, each watched by a RetentionTrace.
#ifndef TIDEPOOL_CLIENT_CLI_INSPECT_RUN_H_
#define TIDEPOOL_CLIENT_CLI_INSPECT_RUN_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "tidepool/v1/generation.pb.h"
#include "worker/engine/engine.h"
#include "worker/kv/retention_trace.h"
#include "worker/model/model.h"

namespace tidepool::cli {

// Queries of the prompt's end by which the attention kept is measured.
inline constexpr int kInspectedQueries = 32;

struct InspectedText {
  std::string prompt;
  std::string question;  // empty: the answer follows the prompt; else it is the next turn
  bool chat_template = false;
};

struct InspectedPolicy {
  std::string label;  // unique in a run, as the user wrote it
  v1::CompressionParams compression;
};

struct Inspection {
  std::string label;
  CompressionSpec spec;
  std::shared_ptr<const RetentionTrace> trace;
  std::vector<int32_t> prompt, question;  // token ids
  std::vector<int32_t> generated;         // all; the last one has no row
  std::string answer;
  FinishReason reason = FinishReason::kStop;
  GenerationUsage usage;  // of the last turn
  // Rows fetched and given up, over all turns.
  int64_t recalled_rows = 0, late_rows = 0, lost_rows = 0;
};

// `engine` has a cache and a manifest store. Sampling and stop conditions count for the answer. InvalidArgument and
// whatever else the engine answers, with the policy's label before it.
absl::StatusOr<Inspection> Inspect(Engine& engine, const KvLayout& layout, const InspectedText& text,
                                   const InspectedPolicy& policy, const v1::SamplingParams& sampling,
                                   const v1::StopParams& stop, absl::Time deadline);

}  // namespace tidepool::cli

#endif  // TIDEPOOL_CLIENT_CLI_INSPECT_RUN_H_
