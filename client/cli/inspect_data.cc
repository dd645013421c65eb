#include "client/cli/inspect_data.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "client/utf8.h"

namespace tidepool::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kFateBits = 2, kFatesPerByte = 8 / kFateBits;

double Rounded(double share) { return std::round(share * 1e6) / 1e6; }

std::string Base64(const std::string& bytes) { return absl::Base64Escape(bytes); }

// [layer][kv head][ceil(tokens / 4)] bytes, the first position in the lowest bits.
std::string PackedFates(const RetentionTrace& trace) {
  const size_t row = (trace.tokens() + kFatesPerByte - 1) / kFatesPerByte;
  std::string packed(row * trace.layers() * trace.kv_heads(), '\0');
  for (int layer = 0; layer < trace.layers(); ++layer) {
    for (int kv_head = 0; kv_head < trace.kv_heads(); ++kv_head) {
      char* const out = packed.data() + (layer * trace.kv_heads() + kv_head) * row;
      for (int32_t position = 0; position < trace.tokens(); ++position) {
        const int fate = static_cast<int>(trace.fate(layer, kv_head, position));
        out[position / kFatesPerByte] |= static_cast<char>(fate << kFateBits * (position % kFatesPerByte));
      }
    }
  }
  return Base64(packed);
}

// [layer][kv head][tokens] bytes, at most 255.
std::string PackedRecallSteps(const RetentionTrace& trace) {
  std::string packed;
  for (int layer = 0; layer < trace.layers(); ++layer) {
    for (int kv_head = 0; kv_head < trace.kv_heads(); ++kv_head) {
      for (int32_t position = 0; position < trace.tokens(); ++position) {
        packed.push_back(static_cast<char>(std::min(255, trace.recalled_steps(layer, kv_head, position))));
      }
    }
  }
  return Base64(packed);
}

std::string Percent(double share) { return absl::StrFormat("%g %%", std::round(share * 1e4) / 100); }

std::string BudgetText(const CompressionSpec& spec) {
  if (spec.schedule == Schedule::kNever) return "everything";
  if (spec.budget_tokens > 0) return absl::StrCat(spec.budget_tokens, " tokens");
  return Percent(spec.budget_fraction);
}

const char* RecallText(const CompressionSpec& spec) {
  switch (spec.recall.mode) {
    case RecallMode::kOff: return "off";
    case RecallMode::kAsync: return "async";
    case RecallMode::kSync: return "sync";
  }
  return "off";
}

Json Pieces(const Tokenizer& tokenizer, absl::Span<const int32_t> tokens) {
  Json pieces = Json::array();
  for (int32_t token : tokens) pieces.push_back(ReadablePiece(tokenizer.Piece(token, /*render_special=*/true)));
  return pieces;
}

Json PolicyJson(const Model& model, const Inspection& inspection) {
  const RetentionTrace& trace = *inspection.trace;
  const int64_t heads = int64_t{trace.layers()} * trace.kv_heads();
  HeadRetention sum;
  int64_t kept = 0, recalled = 0, merged = 0, evicted = 0, recall_slots = 0, recall_steps = 0;
  Json of_heads = {{"kept", Json::array()},       {"recalled", Json::array()},      {"merged", Json::array()},
                   {"evicted", Json::array()},    {"recall_slots", Json::array()},  {"prompt_attention", Json::array()},
                   {"later_kept", Json::array()}, {"later_recalled", Json::array()}};
  for (int layer = 0; layer < trace.layers(); ++layer) {
    for (int kv_head = 0; kv_head < trace.kv_heads(); ++kv_head) {
      const HeadRetention head = trace.Retention(layer, kv_head);
      kept += head.kept;
      recalled += head.recalled;
      merged += head.merged;
      evicted += head.evicted;
      recall_slots += head.recall_slots;
      recall_steps += head.recall_steps;
      sum.prompt_attention += head.prompt_attention;
      sum.later_kept += head.later_kept;
      sum.later_recalled += head.later_recalled;
      of_heads["kept"].push_back(head.kept);
      of_heads["recalled"].push_back(head.recalled);
      of_heads["merged"].push_back(head.merged);
      of_heads["evicted"].push_back(head.evicted);
      of_heads["recall_slots"].push_back(head.recall_slots);
      of_heads["prompt_attention"].push_back(Rounded(head.prompt_attention));
      of_heads["later_kept"].push_back(Rounded(head.later_kept));
      of_heads["later_recalled"].push_back(Rounded(head.later_recalled));
    }
  }
  const double count = static_cast<double>(heads);
  const int64_t given = static_cast<int64_t>(inspection.prompt.size() + inspection.question.size());
  const size_t computed = static_cast<size_t>(std::max<int64_t>(0, trace.tokens() - given));
  Json json = {
      {"label", inspection.label},
      {"preset", inspection.spec.preset},
      {"budget", BudgetText(inspection.spec)},
      {"recall", RecallText(inspection.spec)},
      {"tokens", trace.tokens()},
      {"generated", Pieces(model.tokenizer(), absl::MakeConstSpan(inspection.generated).first(computed))},
      {"answer", inspection.answer},
      {"rows",
       {{"all", heads * trace.tokens()},
        {"kept", kept},
        {"recalled", recalled},
        {"merged", merged},
        {"evicted", evicted},
        {"recall_slots", recall_slots},
        {"recall_steps", recall_steps},
        {"recalls", inspection.recalled_rows},
        {"late", inspection.late_rows},
        {"lost", inspection.lost_rows}}},
      {"bytes", {{"device", inspection.usage.resident_kv_bytes}, {"full", inspection.usage.full_kv_bytes}}},
      {"attention",
       {{"prompt", Rounded(sum.prompt_attention / count)},
        {"later_kept", Rounded(sum.later_kept / count)},
        {"later_recalled", Rounded(sum.later_recalled / count)},
        {"later_queries", trace.later_queries()}}},
      {"heads", std::move(of_heads)},
      {"fates", PackedFates(trace)},
  };
  if (recall_steps > 0) json["recall_steps"] = PackedRecallSteps(trace);
  return json;
}

}  // namespace

std::string ReadablePiece(std::string_view bytes) {
  std::string out;
  while (!bytes.empty()) {
    const size_t valid = client::ValidUtf8Prefix(bytes);
    out.append(bytes.substr(0, valid));
    bytes.remove_prefix(valid);
    if (bytes.empty()) break;
    absl::StrAppendFormat(&out, "\\x%02X", static_cast<unsigned>(static_cast<unsigned char>(bytes[0])));
    bytes.remove_prefix(1);
  }
  return out;
}

std::string InspectionJson(const Model& model, std::string_view question, absl::Span<const Inspection> inspections) {
  const Inspection& first = inspections[0];
  const ModelConfig& config = model.config();
  std::vector<int32_t> given = first.prompt;
  given.insert(given.end(), first.question.begin(), first.question.end());
  Json policies = Json::array();
  for (const Inspection& inspection : inspections) policies.push_back(PolicyJson(model, inspection));
  const Json json = {{"format", 1},
                     {"model",
                      {{"name", config.name},
                       {"layers", config.layers},
                       {"kv_heads", config.kv_heads},
                       {"query_heads", config.heads}}},
                     {"queries", kInspectedQueries},
                     {"prompt_tokens", first.prompt.size()},
                     {"question_tokens", first.question.size()},
                     {"question", question},
                     {"pieces", Pieces(model.tokenizer(), given)},
                     {"policies", std::move(policies)}};
  const std::string text = json.dump(-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace);
  return absl::StrReplaceAll(text, {{"<", "\\u003c"}, {">", "\\u003e"}, {"&", "\\u0026"}});
}

}  // namespace tidepool::cli
