#include "bench/quality/needles.h"

#include <optional>
#include <utility>

#include "absl/time/clock.h"

namespace tidepool::quality {
namespace {

struct Tally {
  double nats = 0;
  int tokens = 0, first = 0, questions = 0, exact = 0;
  std::vector<double> of_questions;  // nats per token

  void Add(const std::vector<TokenLogprob>& answer) {
    int of_this = 0;
    double nats_of_this = 0;
    for (const TokenLogprob& l : answer) {
      nats_of_this -= l.logprob;
      of_this += !l.top.empty() && l.top[0].first == l.token;
    }
    nats += nats_of_this;
    of_questions.push_back(nats_of_this / static_cast<double>(answer.size()));
    tokens += static_cast<int>(answer.size());
    first += of_this;
    ++questions;
    exact += of_this == static_cast<int>(answer.size());
  }
};

}  // namespace

Cell MeasureNeedles(BenchEngine& engine, const std::vector<NeedleTask>& tasks, bool visible, const Setting& setting) {
  const absl::Time begin = absl::Now();
  const Tokenizer& tokenizer = engine.tokenizer();
  Cell cell;
  cell.setting = setting;
  Tally tally;
  for (const NeedleTask& task : tasks) {
    const std::vector<int32_t> context = tokenizer.Encode(task.context, true, false);
    std::optional<SessionManifest> session;
    if (!visible) session = engine.Compress(context, setting.spec);
    for (const auto& [question, answer] : task.questions) {
      const std::vector<int32_t> asked = tokenizer.Encode(question, true, false);
      GenerationRequest next;
      next.compression = setting.spec;
      next.forced_tokens = tokenizer.Encode(answer, false, false);
      next.logprobs = 1;
      test::Answer scored;
      if (visible) {
        next.prompt = context;
        next.prompt.insert(next.prompt.end(), asked.begin(), asked.end());
        scored = engine.Run(next);
        cell.cost.Add(scored.result.usage, 0);
      } else {
        next.prompt = asked;
        scored = engine.Continue(*session, next);
        cell.cost.Add(scored.result.usage, static_cast<int64_t>(asked.size()));
      }
      tally.Add(scored.logprobs);
    }
    if (session.has_value()) engine.Forget(session->session_id);
  }
  cell.metrics = {{"questions", tally.questions},
                  {"nll", tally.nats / tally.tokens},
                  {"nll_error", StandardError(tally.of_questions)},
                  {"first", static_cast<double>(tally.first) / tally.tokens},
                  {"exact", static_cast<double>(tally.exact) / tally.questions}};
  cell.items = std::move(tally.of_questions);
  cell.seconds = absl::ToDoubleSeconds(absl::Now() - begin);
  return cell;
}

}  // namespace tidepool::quality
