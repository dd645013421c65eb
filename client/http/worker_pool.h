// The workers behind the front, who of them answers, and which models they have. Each is asked for its model every
// second by a thread of its own; who does not answer gets no requests. Thread-safe.
#ifndef TIDEPOOL_CLIENT_HTTP_WORKER_POOL_H_
#define TIDEPOOL_CLIENT_HTTP_WORKER_POOL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "base/mutex.h"
#include "client/generation_client.h"
#include "client/http/vocabulary.h"

namespace tidepool::http {

inline constexpr size_t kMaxWorkers = 64;

// A worker has one tenant: only requests of that tenant go to it.
struct WorkerAddress {
  std::string tenant;
  std::string address;
};

// "ADDRESS", of the default tenant, or "TENANT=ADDRESS".
absl::StatusOr<WorkerAddress> ParseWorkerAddress(const std::string& text);

struct ServedModel {
  std::string id;  // the model's name with - for what is no letter, digit, . _ -
  std::string fingerprint;
  int context_tokens = 0;
  int64_t since_unix_seconds = 0;  // when it was seen first
  std::shared_ptr<const Vocabulary> vocabulary;
};

std::string ModelIdOf(const std::string& name);

class WorkerPool {
 public:
  class Worker;
  // A worker chosen for one request, which counts as its load while the lease lives.
  class Lease {
   public:
    Lease() = default;
    Lease(std::shared_ptr<Worker> worker, std::shared_ptr<const ServedModel> model);
    Lease(Lease&&) = default;
    Lease& operator=(Lease&&) = default;

    const std::string& address() const;
    GenerationClient& client() const;
    int load() const;  // requests of this front that the worker has, this one included
    const ServedModel& model() const { return *model_; }

   private:
    std::shared_ptr<Worker> worker_;
    std::shared_ptr<void> load_;
    std::shared_ptr<const ServedModel> model_;
  };

  // model_id: the id of every model, in place of its own; empty: its own.
  // security: towards the workers; null: plain text.
  WorkerPool(const std::vector<WorkerAddress>& addresses, std::string model_id,
             const std::shared_ptr<const ChannelSecurity>& security = nullptr);
  ~WorkerPool();

  struct Wanted {
    std::string tenant;
    std::string model;              // empty: the only one
    std::string session_id;         // empty: none
    std::set<std::string> without;  // addresses
  };
  // For a session the same worker each time, as long as it answers, whichever front asks; else the one with the fewest
  // requests of this front. NotFound when no worker of the tenant has the model, Unavailable when none of those that
  // have it and are not in `without` answers.
  absl::StatusOr<Lease> Choose(const Wanted& wanted);

  struct Route {
    Lease worker;
    int64_t session_turns = -1;  // that the session has; -1: there is none, or nobody knows
  };
  // The same, but without a session the one that is expected to give the first token first, by what it has stored of
  // the prompt and by its load; and of a session how many turns it has. `question` is about the request. `done` is
  // called once, by this thread or one of gRPC's, which it must not block.
  void Find(Wanted wanted, v1::EstimateRequest question, std::function<void(absl::StatusOr<Route>)> done);

  // Of the tenant's workers that answer, each once, by id.
  std::vector<std::shared_ptr<const ServedModel>> Models(const std::string& tenant) const;
  bool HasTenant(const std::string& tenant) const;
  int answering() const;
  int size() const { return static_cast<int>(workers_.size()); }
  // Waits until each worker has answered, or has let 10 s pass.
  void WaitForFirstAnswers();

 private:
  void Watch(Worker& worker);
  // In the order in which to try them; at least one.
  absl::StatusOr<std::vector<Lease>> Candidates(const Wanted& wanted);
  void FindForSession(Wanted wanted, v1::EstimateRequest question, std::function<void(absl::StatusOr<Route>)> done);
  // Of Find's calls: the pool outlives their answers.
  void Asked(int count);
  absl::StatusOr<std::shared_ptr<const ServedModel>> Ask(Worker& worker, const ServedModel* before);

  const std::string model_id_;
  mutable Mutex mutex_;
  CondVar changed_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  int asked_ ABSL_GUARDED_BY(mutex_) = 0;  // calls of Find that are not answered
  std::vector<std::shared_ptr<Worker>> workers_;
  std::vector<std::thread> threads_;
};

}  // namespace tidepool::http

#endif  // TIDEPOOL_CLIENT_HTTP_WORKER_POOL_H_
