#include "tests/chaos/calm_answers.h"

#include <stdexcept>

#include "absl/strings/str_cat.h"

namespace tidepool::test {

CalmAnswers::CalmAnswers(const std::string& worker, int contexts) : contexts_(contexts) {
  GenerationClient client(worker);
  for (int context = 0; context < contexts; ++context) {
    for (const LookupPolicy policy : {LookupPolicy::kFull, LookupPolicy::kSnapKvSync}) {
      const std::string session = absl::StrCat("calm-", context, "-", static_cast<int>(policy));
      for (int turn = 0; turn < kMostTurns; ++turn) {
        Learn(client, {.context = context, .policy = policy, .turn = turn, .session = session});
      }
      const absl::Status ended = client.EndSession(session);
      if (!ended.ok()) throw std::runtime_error(ended.ToString());
    }
    for (const LookupPolicy policy : {LookupPolicy::kFull, LookupPolicy::kSnapKv, LookupPolicy::kSnapKvSync}) {
      for (int turn = 1; turn <= kQuestions; ++turn) {
        Learn(client, {.context = context, .policy = policy, .turn = turn});
      }
    }
  }
}

void CalmAnswers::Learn(GenerationClient& client, const LookupTurn& turn) {
  const LookupAnswer answer = Ask(client, turn);
  if (!answer.status.ok()) throw std::runtime_error(absl::StrCat("without faults: ", answer.status.ToString()));
  answers_[KeyOf(turn)] = {.ids = answer.ids, .prompt_tokens = answer.usage.prompt_tokens()};
}

const CalmAnswer& CalmAnswers::Of(const LookupTurn& turn) const { return answers_.at(KeyOf(turn)); }

}  // namespace tidepool::test
