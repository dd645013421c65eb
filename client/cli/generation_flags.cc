// Sampling, stop, compression and session flags of `generate` and `chat`.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/byte_size.h"
#include "base/status_macros.h"
#include "client/cli/cli.h"

// Sampling. The worker checks the ranges.
ABSL_FLAG(double, temperature, 0, "0: greedy; at most 10");
ABSL_FLAG(int, top_k, 0, "draw from the best so many tokens; 0: all");
ABSL_FLAG(double, top_p, 1, "draw from the smallest set that has this probability: above 0 to 1");
ABSL_FLAG(double, min_p, 0, "drop tokens below this times the best's probability: 0 to below 1");
ABSL_FLAG(double, repetition_penalty, 1, "divides the logits of tokens seen before: above 0 to 10");
ABSL_FLAG(double, presence_penalty, 0, "taken from the logit of a token that was generated: -2 to 2");
ABSL_FLAG(double, frequency_penalty, 0, "taken for each time that it was generated: -2 to 2");
ABSL_FLAG(uint64_t, seed, 0, "equal seeds and inputs give equal answers");
ABSL_FLAG(std::vector<std::string>, logit_bias, {}, "added to logits: TOKEN:BIAS,... with -100 to 100");
ABSL_FLAG(int, logprobs, -1, "with --json, alternatives shown for each token: 0 to 20; -1: no log-probabilities");

// Where the answer ends.
ABSL_FLAG(int, max_tokens, 128, "most tokens to generate; 0: the prompt is processed only");
ABSL_FLAG(int, min_tokens, 0, "stop strings and ids count after so many tokens");
ABSL_FLAG(std::string, stop, "",
          "string that ends the text before it; several as a JSON list: '[\"\\n\\n\", \"END\"]'");
ABSL_FLAG(std::vector<std::string>, stop_token_ids, {}, "tokens that end the text: ID,ID,...");
ABSL_FLAG(bool, ignore_eos, false, "go on past the model's end token");

// Compression and recall.
ABSL_FLAG(std::string, preset, "",
          "compression: full, streaming, snapkv, h2o, d2o, pyramidkv, ada-snapkv, ada-pyramidkv, tova, lighttransfer, "
          "simlayerkv, ahakv; empty: full, or the session's own");
ABSL_FLAG(
    std::string, budget, "",
    "what stays on the device: a share of the full cache (0.2), tokens of each layer and kv head (512), or bytes of "
    "the sequence (8MiB); empty: the preset's own, 0.2, but 1 for lighttransfer and simlayerkv");
ABSL_FLAG(std::string, decode_budget, "held",
          "held: the budget holds at every step; published: as the papers have it, what is gained while decoding comes "
          "on top");
ABSL_FLAG(
    std::string, prefill, "whole",
    "when the prompt is compressed: whole, when all of it is in; chunked, after every --compress-chunk tokens, for "
    "prompts longer than the worker's slot pool");
ABSL_FLAG(int, compress_chunk, 256, "tokens, a multiple of 64");
ABSL_FLAG(std::optional<int>, sink_tokens, std::nullopt,
          "first tokens that always stay, 0 to 1024; unset: the preset's");
ABSL_FLAG(std::optional<int>, window_tokens, std::nullopt,
          "last tokens of the prompt, which choose and always stay, 1 to 1024; unset: the preset's");
ABSL_FLAG(std::string, recall, "off", "how evicted rows come back: off, async, sync");
ABSL_FLAG(double, recall_share, 0.5, "of the budget that is recall slots: 0 to 0.75");
ABSL_FLAG(int, recall_rows, 0, "recall slots of each layer and kv head; 0: --recall-share decides");
ABSL_FLAG(int, recall_budget_ms, 20, "async: requests for rows that take longer are given up, 1 to 60000");
ABSL_FLAG(double, recall_staging, 4,
          "async: rows kept ready in the worker's host memory, as a multiple of the recall slots, 1 to 64");
ABSL_FLAG(std::string, recall_index, "k4",
          "what rows are chosen by: k4, pq16x4, pq8x8 (a fifth of k4's bytes); to compare with: exact, page8, page16");
ABSL_FLAG(std::string, index_placement, "host", "where the index counts: host, device (inside the device budget)");
ABSL_FLAG(int, shortlist, -1,
          "rows beyond the slots whose own keys are compared before the choice, 0 to 65536; -1: 192 for pq16x4 and "
          "pq8x8, else 0");
ABSL_FLAG(std::string, on_recall_loss, "continue", "when rows cannot be recalled: continue, fail");

ABSL_FLAG(std::string, session, "",
          "keeps the context under this name: what is sent is its next turn. Needs a worker with a cache service");

namespace tidepool::cli {
namespace {

absl::Status ReadSampling(v1::SamplingParams& sampling) {
  sampling.set_temperature(static_cast<float>(absl::GetFlag(FLAGS_temperature)));
  sampling.set_top_k(absl::GetFlag(FLAGS_top_k));
  sampling.set_top_p(static_cast<float>(absl::GetFlag(FLAGS_top_p)));
  sampling.set_min_p(static_cast<float>(absl::GetFlag(FLAGS_min_p)));
  sampling.set_repetition_penalty(static_cast<float>(absl::GetFlag(FLAGS_repetition_penalty)));
  sampling.set_presence_penalty(static_cast<float>(absl::GetFlag(FLAGS_presence_penalty)));
  sampling.set_frequency_penalty(static_cast<float>(absl::GetFlag(FLAGS_frequency_penalty)));
  sampling.set_seed(absl::GetFlag(FLAGS_seed));
  for (const std::string& entry : absl::GetFlag(FLAGS_logit_bias)) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(entry, absl::MaxSplits(':', 1));
    int32_t token = 0;
    float bias = 0;
    if (!absl::SimpleAtoi(parts.first, &token) || !absl::SimpleAtof(parts.second, &bias)) {
      return absl::InvalidArgumentError(absl::StrCat("--logit-bias: '", entry, "' is not TOKEN:BIAS"));
    }
    (*sampling.mutable_logit_bias())[token] = bias;
  }
  return absl::OkStatus();
}

absl::Status ReadStop(v1::StopParams& stop) {
  stop.set_max_tokens(absl::GetFlag(FLAGS_max_tokens));
  stop.set_min_tokens(absl::GetFlag(FLAGS_min_tokens));
  stop.set_ignore_eos(absl::GetFlag(FLAGS_ignore_eos));
  for (const std::string& entry : absl::GetFlag(FLAGS_stop_token_ids)) {
    int32_t token = 0;
    if (!absl::SimpleAtoi(entry, &token)) {
      return absl::InvalidArgumentError(absl::StrCat("--stop-token-ids: '", entry, "' is not a token id"));
    }
    stop.add_token_ids(token);
  }
  const std::string text = absl::GetFlag(FLAGS_stop);
  if (text.empty()) return absl::OkStatus();
  if (text[0] != '[') {
    stop.add_strings(text);
    return absl::OkStatus();
  }
  const nlohmann::json list = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  for (const nlohmann::json& entry : list) {
    if (!entry.is_string())
      return absl::InvalidArgumentError(absl::StrCat("--stop: ", text, " holds what is no string"));
    stop.add_strings(entry.get<std::string>());
  }
  if (!list.is_array()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--stop: ", text, " begins like a JSON list and is none (a single '[' is '[\"[\"]')"));
  }
  return absl::OkStatus();
}

absl::Status ReadBudget(v1::CompressionParams& compression) {
  const std::string budget = absl::GetFlag(FLAGS_budget);
  if (budget.empty()) return absl::OkStatus();
  if (absl::ascii_isalpha(static_cast<unsigned char>(budget.back()))) {
    const std::optional<uint64_t> bytes = ParseByteSize(budget);
    if (!bytes.has_value() || *bytes == 0 || *bytes > uint64_t{1} << 50) {
      return absl::InvalidArgumentError(absl::StrCat("--budget: '", budget, "' is no number of bytes, such as 8MiB"));
    }
    compression.set_budget_bytes(static_cast<int64_t>(*bytes));
    return absl::OkStatus();
  }
  double amount = 0;
  const bool is_number = absl::SimpleAtod(budget, &amount) && amount > 0 && amount <= (1 << 24);
  const bool is_share = absl::StrContains(budget, ".");
  if (!is_number || (is_share ? amount > 1 : amount != std::floor(amount))) {
    return absl::InvalidArgumentError(
        absl::StrCat("--budget: '", budget,
                     "' is neither a share with a point, above 0 to 1.0, nor a number of tokens or of bytes (8MiB)"));
  }
  if (is_share) {
    compression.set_budget_fraction(amount);
  } else {
    compression.set_budget_tokens(static_cast<int>(amount));
  }
  return absl::OkStatus();
}

absl::Status ReadHolding(v1::CompressionParams& compression) {
  const std::string decode = absl::GetFlag(FLAGS_decode_budget), prefill = absl::GetFlag(FLAGS_prefill);
  if (decode != "held" && decode != "published") {
    return absl::InvalidArgumentError(absl::StrCat("--decode-budget: '", decode, "' is not held or published"));
  }
  if (prefill != "whole" && prefill != "chunked") {
    return absl::InvalidArgumentError(absl::StrCat("--prefill: '", prefill, "' is not whole or chunked"));
  }
  if (decode == "published") compression.set_decode_budget(v1::DECODE_BUDGET_PUBLISHED);
  if (prefill == "chunked") {
    compression.set_prefill(v1::PREFILL_MODE_CHUNKED);
    compression.set_prefill_chunk(absl::GetFlag(FLAGS_compress_chunk));
  }
  return absl::OkStatus();
}

absl::StatusOr<v1::RecallMode> ReadRecallMode() {
  const std::string mode = absl::GetFlag(FLAGS_recall);
  if (mode == "off") return v1::RECALL_MODE_OFF;
  if (mode == "async") return v1::RECALL_MODE_ASYNC;
  if (mode == "sync") return v1::RECALL_MODE_SYNC;
  return absl::InvalidArgumentError(absl::StrCat("--recall: '", mode, "' is not off, async or sync"));
}

absl::Status ReadRecallIndex(v1::RecallParams& recall) {
  const std::pair<const char*, v1::RecallIndex> kinds[] = {
      {"k4", v1::RECALL_INDEX_K4},       {"pq16x4", v1::RECALL_INDEX_PQ16X4}, {"pq8x8", v1::RECALL_INDEX_PQ8X8},
      {"exact", v1::RECALL_INDEX_EXACT}, {"page8", v1::RECALL_INDEX_PAGE8},   {"page16", v1::RECALL_INDEX_PAGE16}};
  const std::string index = absl::GetFlag(FLAGS_recall_index), placement = absl::GetFlag(FLAGS_index_placement);
  const auto* kind = std::find_if(std::begin(kinds), std::end(kinds), [&](const auto& k) { return index == k.first; });
  if (kind == std::end(kinds)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--recall-index: '", index, "' is not k4, pq16x4, pq8x8, exact, page8 or page16"));
  }
  if (placement != "host" && placement != "device") {
    return absl::InvalidArgumentError(absl::StrCat("--index-placement: '", placement, "' is not host or device"));
  }
  recall.set_index(kind->second);
  recall.set_index_placement(placement == "host" ? v1::INDEX_PLACEMENT_HOST : v1::INDEX_PLACEMENT_DEVICE);
  const int shortlist = absl::GetFlag(FLAGS_shortlist);
  if (shortlist < -1 || shortlist > 65536) {
    return absl::InvalidArgumentError(absl::StrCat("--shortlist: ", shortlist, " is not in -1 to 65536"));
  }
  if (shortlist >= 0) recall.set_shortlist(shortlist);
  return absl::OkStatus();
}

absl::Status ReadCompression(v1::CompressionParams& compression) {
  const std::string preset = absl::GetFlag(FLAGS_preset);
  TP_ASSIGN_OR_RETURN(const v1::RecallMode mode, ReadRecallMode());
  const std::string on_loss = absl::GetFlag(FLAGS_on_recall_loss);
  if (on_loss != "continue" && on_loss != "fail") {
    return absl::InvalidArgumentError(absl::StrCat("--on-recall-loss: '", on_loss, "' is not continue or fail"));
  }
  if (mode != v1::RECALL_MODE_OFF && (preset.empty() || preset == "full")) {
    return absl::InvalidArgumentError("--recall: needs a --preset that evicts something");
  }
  v1::CompressionParams budget;
  TP_RETURN_IF_ERROR(ReadHolding(budget));
  TP_RETURN_IF_ERROR(ReadBudget(budget));  // a mistake is one also where the value is not used
  if (preset.empty()) return absl::OkStatus();
  if (preset != "full") compression = budget;
  compression.set_preset(preset);
  if (preset == "full") return absl::OkStatus();
  if (const std::optional<int> sink = absl::GetFlag(FLAGS_sink_tokens); sink.has_value()) {
    compression.set_sink_tokens(*sink);
  }
  if (const std::optional<int> window = absl::GetFlag(FLAGS_window_tokens); window.has_value()) {
    compression.set_window_tokens(*window);
  }
  if (mode == v1::RECALL_MODE_OFF) return absl::OkStatus();
  v1::RecallParams& recall = *compression.mutable_recall();
  recall.set_mode(mode);
  TP_RETURN_IF_ERROR(ReadRecallIndex(recall));
  recall.set_share(absl::GetFlag(FLAGS_recall_share));
  if (const int rows = absl::GetFlag(FLAGS_recall_rows); rows != 0) recall.set_rows(rows);
  recall.set_budget_ms(absl::GetFlag(FLAGS_recall_budget_ms));
  recall.set_staging(absl::GetFlag(FLAGS_recall_staging));
  recall.set_on_loss(on_loss == "fail" ? v1::ON_RECALL_LOSS_FAIL : v1::ON_RECALL_LOSS_CONTINUE);
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadGenerationFlags(GenerationFlags* flags) {
  TP_RETURN_IF_ERROR(ReadSampling(flags->sampling));
  TP_RETURN_IF_ERROR(ReadStop(flags->stop));
  TP_RETURN_IF_ERROR(ReadCompression(flags->compression));
  flags->logprobs = absl::GetFlag(FLAGS_logprobs);
  if (flags->logprobs < -1 || flags->logprobs > 20) {
    return absl::InvalidArgumentError(absl::StrCat("--logprobs: ", flags->logprobs, " is not in -1 to 20"));
  }
  flags->session = absl::GetFlag(FLAGS_session);
  return absl::OkStatus();
}

}  // namespace tidepool::cli
