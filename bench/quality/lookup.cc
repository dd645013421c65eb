#include "bench/quality/lookup.h"

#include <nlohmann/json.hpp>

#include "absl/time/clock.h"
#include "bench/quality/or_die.h"

namespace tidepool::quality {
namespace {

constexpr int32_t kFiller = 2;  // fillers are the tokens 2 to 511, keys and values those above

int32_t BestOtherThan(int32_t token, const TokenLogprob& logprob) {
  for (const auto& [other, value] : logprob.top) {
    if (other != token) return other;
  }
  return -1;
}

}  // namespace

std::vector<LookupCase> ReadLookupCases(const std::string& path) {
  std::vector<LookupCase> cases;
  for (const nlohmann::json& one : nlohmann::json::parse(ReadAll(path))) {
    LookupCase& lookup = cases.emplace_back();
    lookup.context = one["context_ids"].get<std::vector<int32_t>>();
    for (const nlohmann::json& question : one["questions"]) {
      lookup.questions.emplace_back(question[0].get<int32_t>(), question[1].get<int32_t>());
    }
  }
  return cases;
}

Cell MeasureLookup(BenchEngine& engine, const LookupCase& lookup, const Setting& setting, absl::Duration pace) {
  const absl::Time begin = absl::Now();
  Cell cell;
  cell.setting = setting;
  cell.suite = "lookup";
  cell.length = static_cast<int>(lookup.context.size());
  const SessionManifest context = engine.Compress(lookup.context, setting.spec);
  int turn = 0, step1 = 0, step2 = 0;
  for (const auto& [key, value] : lookup.questions) {
    GenerationRequest asked;
    asked.compression = setting.spec;
    asked.prompt = {key};
    asked.stop.max_tokens = 1;
    asked.stop.ignore_eos = true;
    const test::Answer answer = engine.Continue(context, asked);
    turn += answer.tokens.size() == 1 && answer.tokens[0] == value;
    cell.cost.Add(answer.result.usage, 1);

    GenerationRequest inside;
    inside.compression = setting.spec;
    inside.prompt = {kFiller};
    inside.forced_tokens = {key, key, value};
    inside.logprobs = 2;
    const test::Answer steps = engine.Continue(context, inside, pace);
    const bool first = steps.logprobs[1].top[0].first == value;
    step1 += first;
    step2 += first || BestOtherThan(key, steps.logprobs[2]) == value;
    cell.cost.Add(steps.result.usage, 1);
  }
  engine.Forget(context.session_id);
  cell.metrics = {
      {"questions", static_cast<double>(lookup.questions.size())}, {"turn", turn}, {"step1", step1}, {"step2", step2}};
  cell.seconds = absl::ToDoubleSeconds(absl::Now() - begin);
  return cell;
}

}  // namespace tidepool::quality
