#include "tests/chaos/chaos_clients.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "tests/support/eventually.h"

namespace tidepool::test {
namespace {

void Pause(absl::Duration time) { Tick(absl::ToChronoMilliseconds(time)); }

std::string Named(const LookupTurn& turn) {
  return turn.session.empty() ? absl::StrCat("context ", turn.context, ", question ", turn.turn)
                              : absl::StrCat("session ", turn.session, ", turn ", turn.turn);
}

}  // namespace

// One client's thread.
class ChaosClients::Client {
 public:
  Client(ChaosClients* all, int number)
      : all_(all), number_(number), random_(all->options_.seed * 1'000 + static_cast<uint64_t>(number)) {
    for (int worker = 0; worker < all->fleet_->workers(); ++worker) {
      workers_.push_back(std::make_unique<GenerationClient>(all->fleet_->worker_address(worker)));
    }
  }

  void Run() {
    while (!all_->finishing()) {
      if (Draw(10) < 7) {
        RunSession();
      } else {
        AskAlone();
      }
    }
  }

  // Whether the turn was answered right; false has been counted.
  Outcome Turn(const LookupTurn& turn);
  void End(const std::string& session);

 private:
  int Draw(int below) { return static_cast<int>(random_() % static_cast<uint64_t>(below)); }
  void Think() { Pause(all_->options_.pause * (Draw(1'000) / 1'000.0)); }
  void RunSession();
  void AskAlone();
  // Compares an answer; false: it is wrong, which has been counted.
  bool Compare(const LookupTurn& turn, const LookupAnswer& answer);
  void Fail(const LookupTurn& turn, const std::string& why);

  ChaosClients* const all_;
  const int number_;
  std::mt19937_64 random_;
  std::vector<std::unique_ptr<GenerationClient>> workers_;
  int worker_ = 0;  // asked last
  int sessions_ = 0;
};

bool ChaosClients::Client::Compare(const LookupTurn& turn, const LookupAnswer& answer) {
  const CalmAnswer& calm = all_->calm_->Of(turn);
  const bool right = answer.ids == calm.ids && answer.usage.prompt_tokens() == calm.prompt_tokens;
  const bool again =
      turn.turn > 0 && !turn.session.empty() && answer.usage.cached_prompt_tokens() + 64 < calm.prompt_tokens;
  all_->tally_->Count([&](Tally::Counts& counts) {
    ++counts.answers;
    if (!turn.session.empty()) ++counts.session_turns;
    if (again) ++counts.recomputed_turns;
    if (!right) ++counts.wrong;
  });
  if (!right) {
    all_->tally_->Complain(absl::StrCat("wrong: ", Named(turn), ": [", absl::StrJoin(answer.ids, " "), "] after ",
                                        answer.usage.prompt_tokens(), " tokens, without faults [",
                                        absl::StrJoin(calm.ids, " "), "] after ", calm.prompt_tokens,
                                        answer.usage.degraded() ? ", degraded" : ""));
  }
  return right;
}

void ChaosClients::Client::Fail(const LookupTurn& turn, const std::string& why) {
  all_->tally_->Count([](Tally::Counts& counts) { ++counts.failed; });
  all_->tally_->Complain(absl::StrCat("failed: ", Named(turn), ": ", why));
}

ChaosClients::Outcome ChaosClients::Client::Turn(const LookupTurn& turn) {
  const absl::Time give_up = absl::Now() + all_->options_.patience;
  for (;;) {
    const absl::Time start = absl::Now();
    const LookupAnswer answer = Ask(*workers_[static_cast<size_t>(worker_)], turn, give_up);
    const double seconds = absl::ToDoubleSeconds(absl::Now() - start);
    all_->tally_->Count([&](Tally::Counts& counts) { counts.worst_seconds = std::max(counts.worst_seconds, seconds); });
    if (answer.status.ok()) return Compare(turn, answer) ? Outcome::kAnswered : Outcome::kFailed;

    const bool excused = all_->lives_->WasAwaySince(worker_, start);
    if (excused) {
      all_->tally_->Count([](Tally::Counts& counts) { ++counts.own_worker_gone; });
    } else if (!absl::IsAborted(answer.status)) {
      Fail(turn,
           absl::StrCat("worker ", worker_, ", which is there, after ", seconds, " s: ", answer.status.ToString()));
    }
    if (absl::Now() >= give_up) {
      if (excused) Fail(turn, "no worker answered in time");
      return Outcome::kFailed;
    }
    if (!turn.session.empty()) {
      // The worker may have stored the turn and not come to say so.
      const int64_t stored = all_->fleet_->Revision(turn.session);
      if (stored > turn.turn) {
        all_->tally_->Count([](Tally::Counts& counts) { ++counts.stored_unheard; });
        return Outcome::kStored;
      }
    }
    worker_ = (worker_ + 1) % static_cast<int>(workers_.size());
    Pause(absl::Milliseconds(50));
  }
}

void ChaosClients::Client::End(const std::string& session) {
  const absl::Time give_up = absl::Now() + all_->options_.patience;
  for (;;) {
    const absl::Time start = absl::Now();
    const absl::Status ended = workers_[static_cast<size_t>(worker_)]->EndSession(session);
    if (ended.ok()) {
      // Another worker may hold what it computed of the session ready on its device, until it needs the room.
      for (const auto& worker : workers_) worker->EndSession(session).IgnoreError();
      return all_->tally_->Count([](Tally::Counts& counts) { ++counts.sessions_ended; });
    }
    if (!all_->lives_->WasAwaySince(worker_, start) || absl::Now() >= give_up) {
      all_->tally_->Count([](Tally::Counts& counts) { ++counts.failed; });
      all_->tally_->Complain(absl::StrCat("failed: end of session ", session, ": ", ended.ToString()));
      if (absl::Now() >= give_up) return;
    }
    worker_ = (worker_ + 1) % static_cast<int>(workers_.size());
    Pause(absl::Milliseconds(50));
  }
}

void ChaosClients::Client::RunSession() {
  LookupTurn turn;
  turn.context = Draw(all_->calm_->contexts());
  turn.policy = Draw(2) == 0 ? LookupPolicy::kFull : LookupPolicy::kSnapKvSync;
  turn.session = absl::StrCat("chaos-", number_, "-", sessions_++);
  const int turns = 2 + Draw(CalmAnswers::kMostTurns - 2);  // one is left for the end
  for (; turn.turn < turns && !(all_->finishing() && turn.turn > 0); ++turn.turn) {
    if (Draw(4) == 0) worker_ = Draw(static_cast<int>(workers_.size()));
    if (Turn(turn) == Outcome::kFailed) return End(turn.session);
    Think();
  }
  if (Draw(1'000) < static_cast<int>(all_->options_.kept * 1'000)) {
    all_->Keep(turn);
  } else {
    End(turn.session);
  }
}

void ChaosClients::Client::AskAlone() {
  LookupTurn turn;
  turn.context = Draw(all_->calm_->contexts());
  turn.policy = std::vector{LookupPolicy::kFull, LookupPolicy::kSnapKv, LookupPolicy::kSnapKvSync}[Draw(3)];
  turn.turn = 1 + Draw(CalmAnswers::kQuestions);
  worker_ = Draw(static_cast<int>(workers_.size()));
  Turn(turn);
  Think();
}

ChaosClients::ChaosClients(const Options& options, Fleet* fleet, const CalmAnswers* calm, const WorkerLives* lives,
                           Tally* tally)
    : options_(options), fleet_(fleet), calm_(calm), lives_(lives), tally_(tally) {}

ChaosClients::~ChaosClients() { Finish(); }

void ChaosClients::Start() {
  for (int number = 0; number < options_.clients; ++number) {
    threads_.emplace_back([this, number] { Client(this, number).Run(); });
  }
}

void ChaosClients::Finish() {
  finishing_ = true;
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

void ChaosClients::Keep(LookupTurn next) {
  tally_->Count([](Tally::Counts& counts) { ++counts.sessions_kept; });
  MutexLock lock(&mutex_);
  kept_.push_back(std::move(next));
}

void ChaosClients::AskKept() {
  std::vector<LookupTurn> kept;
  {
    MutexLock lock(&mutex_);
    kept.swap(kept_);
  }
  Client client(this, options_.clients);
  for (const LookupTurn& turn : kept) {
    if (const int64_t stored = fleet_->Revision(turn.session); stored < turn.turn) {
      tally_->Count([](Tally::Counts& counts) { ++counts.lost; });
      tally_->Complain(absl::StrCat("lost: session ", turn.session, ": ", turn.turn,
                                    " turns were acknowledged, the pods have ", stored));
    }
    client.Turn(turn);
    client.End(turn.session);
  }
}

}  // namespace tidepool::test
