// Sampling, stop and compression flags of `generate` and `chat`.
#include <limits>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/cli/cli.h"

ABSL_FLAG(double, temperature, 0, "0: greedy; at most 10");
ABSL_FLAG(int, top_k, 0, "draw from the best so many tokens; 0: all");
ABSL_FLAG(double, top_p, 1, "draw from the smallest set that has this probability: above 0 to 1");
ABSL_FLAG(double, min_p, 0, "drop tokens below this times the best's probability: 0 to below 1");
ABSL_FLAG(double, repetition_penalty, 1, "divides the logits of tokens seen before: above 0 to 10");
ABSL_FLAG(double, presence_penalty, 0, "-2 to 2");
ABSL_FLAG(double, frequency_penalty, 0, "-2 to 2");
ABSL_FLAG(uint64_t, seed, 0, "equal seeds give equal answers");
ABSL_FLAG(int, max_tokens, 128, "most tokens to generate");
ABSL_FLAG(std::vector<std::string>, stop, {}, "strings that end the text, with commas between them");
ABSL_FLAG(bool, ignore_eos, false, "go on past the model's end token");
ABSL_FLAG(std::string, preset, "", "compression: full, streaming, snapkv, h2o, d2o; empty: full, or the session's own");
ABSL_FLAG(std::string, budget, "0.2", "what stays on the device: a share of the tokens (0.2) or tokens (512)");
ABSL_FLAG(std::string, recall, "off", "how evicted rows come back: off, async, sync");
ABSL_FLAG(double, recall_share, 0.5, "of the budget that is recall slots: 0 to 0.75");
ABSL_FLAG(int, recall_rows, 0, "recall slots of each layer and kv head; 0: recall-share decides");

namespace tidepool::cli {

absl::Status FillFromFlags(v1::SamplingParams& sampling, v1::StopParams& stop, v1::CompressionParams& compression) {
  sampling.set_temperature(static_cast<float>(absl::GetFlag(FLAGS_temperature)));
  sampling.set_top_k(absl::GetFlag(FLAGS_top_k));
  sampling.set_top_p(static_cast<float>(absl::GetFlag(FLAGS_top_p)));
  sampling.set_min_p(static_cast<float>(absl::GetFlag(FLAGS_min_p)));
  sampling.set_repetition_penalty(static_cast<float>(absl::GetFlag(FLAGS_repetition_penalty)));
  sampling.set_presence_penalty(static_cast<float>(absl::GetFlag(FLAGS_presence_penalty)));
  sampling.set_frequency_penalty(static_cast<float>(absl::GetFlag(FLAGS_frequency_penalty)));
  sampling.set_seed(absl::GetFlag(FLAGS_seed));
  stop.set_max_tokens(absl::GetFlag(FLAGS_max_tokens));
  for (const std::string& text : absl::GetFlag(FLAGS_stop)) stop.add_strings(text);
  stop.set_ignore_eos(absl::GetFlag(FLAGS_ignore_eos));

  const std::string preset = absl::GetFlag(FLAGS_preset), recall = absl::GetFlag(FLAGS_recall);
  v1::RecallMode mode = v1::RECALL_MODE_OFF;
  if (recall == "async") {
    mode = v1::RECALL_MODE_ASYNC;
  } else if (recall == "sync") {
    mode = v1::RECALL_MODE_SYNC;
  } else if (recall != "off") {
    return absl::InvalidArgumentError(absl::StrCat("--recall: '", recall, "' is not off, async or sync"));
  }
  if (preset.empty()) {
    if (mode != v1::RECALL_MODE_OFF)
      return absl::InvalidArgumentError("--recall: needs a --preset that evicts something");
    return absl::OkStatus();
  }
  compression.set_preset(preset);
  if (preset == "full") return absl::OkStatus();
  const std::string budget = absl::GetFlag(FLAGS_budget);
  double amount = 0;
  if (!absl::SimpleAtod(budget, &amount) || !(amount > 0) || amount > (1 << 24)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--budget: '", budget, "' is not a share up to 1 or a number of tokens"));
  }
  if (amount <= 1 && budget.find('.') != std::string::npos) {
    compression.set_budget_fraction(amount);
  } else {
    compression.set_budget_tokens(static_cast<int>(amount));
  }
  if (mode != v1::RECALL_MODE_OFF) {
    v1::RecallParams& params = *compression.mutable_recall();
    params.set_mode(mode);
    params.set_share(absl::GetFlag(FLAGS_recall_share));
    if (const int rows = absl::GetFlag(FLAGS_recall_rows); rows != 0) params.set_rows(rows);
  }
  return absl::OkStatus();
}

}  // namespace tidepool::cli
