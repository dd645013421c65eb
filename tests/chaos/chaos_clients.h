// The clients of the scenario: each asks one request after another, most of them turns of sessions, and compares every
// answer with the one without faults. As docs/API.md tells clients to, one whose worker goes asks the other worker, and
// says how many turns its session has, so that none is done twice; it looks whether the turn was stored.
#ifndef TIDEPOOL_TESTS_CHAOS_CHAOS_CLIENTS_H_
#define TIDEPOOL_TESTS_CHAOS_CHAOS_CLIENTS_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "client/generation_client.h"
#include "tests/chaos/calm_answers.h"
#include "tests/chaos/tally.h"
#include "tests/chaos/worker_lives.h"
#include "tests/e2e/fleet.h"

namespace tidepool::test {

class ChaosClients {
 public:
  struct Options {
    int clients = 32;
    uint64_t seed = 1;
    absl::Duration pause = absl::Milliseconds(500);  // between two requests of a client, at most
    absl::Duration patience = absl::Seconds(90);     // of one request, all its attempts
    double kept = 0.3;                               // of the sessions: not ended, but asked once more at the end
  };
  // All live longer.
  ChaosClients(const Options& options, Fleet* fleet, const CalmAnswers* calm, const WorkerLives* lives, Tally* tally);
  ~ChaosClients();

  void Start();
  // Lets every client finish its session, and waits for that.
  void Finish();
  // Once faults are over: sessions that were kept go on with the right text, and are ended.
  void AskKept();

 private:
  class Client;
  enum class Outcome { kAnswered, kStored, kFailed };

  bool finishing() const { return finishing_.load(); }
  void Keep(LookupTurn next);

  const Options options_;
  Fleet* const fleet_;
  const CalmAnswers* const calm_;
  const WorkerLives* const lives_;
  Tally* const tally_;
  std::atomic<bool> finishing_{false};
  Mutex mutex_;
  std::vector<LookupTurn> kept_ ABSL_GUARDED_BY(mutex_);  // the next turn of each session
  std::vector<std::thread> threads_;
};

}  // namespace tidepool::test

#endif  // TIDEPOOL_TESTS_CHAOS_CHAOS_CLIENTS_H_
