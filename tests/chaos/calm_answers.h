// What every request of the scenario is answered without faults: asked before the first fault, of a worker and a cache
// of their own. Immutable afterwards; any thread may look.
#ifndef TIDEPOOL_TESTS_CHAOS_CALM_ANSWERS_H_
#define TIDEPOOL_TESTS_CHAOS_CALM_ANSWERS_H_

#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "client/generation_client.h"
#include "tests/e2e/lookup_load.h"

namespace tidepool::test {

struct CalmAnswer {
  std::vector<int32_t> ids;
  int64_t prompt_tokens = 0;  // of a session: its whole context before the answer
};

class CalmAnswers {
 public:
  static constexpr int kMostTurns = 8;  // of a session, the context's included
  static constexpr int kQuestions = 2;  // that are asked of each context without a session

  // Throws when the worker fails one.
  CalmAnswers(const std::string& worker, int contexts);

  int contexts() const { return contexts_; }
  // `turn` names any session; only whether it has one counts.
  const CalmAnswer& Of(const LookupTurn& turn) const;

 private:
  using Key = std::tuple<int, LookupPolicy, int, bool>;
  static Key KeyOf(const LookupTurn& turn) { return {turn.context, turn.policy, turn.turn, !turn.session.empty()}; }
  void Learn(GenerationClient& client, const LookupTurn& turn);

  const int contexts_;
  std::map<Key, CalmAnswer> answers_;
};

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_CHAOS_CALM_ANSWERS_H_
