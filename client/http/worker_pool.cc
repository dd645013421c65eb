#include "client/http/worker_pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "client/estimates.h"
#include "client/http/api_keys.h"
#include "client/routing.h"

namespace tidepool::http {
namespace {

constexpr std::chrono::seconds kAskEvery{1};
constexpr absl::Duration kAnswerTime = absl::Seconds(10);  // a worker whose machine is busy

}  // namespace

class WorkerPool::Worker {
 public:
  Worker(WorkerAddress where, std::shared_ptr<const ChannelSecurity> security)
      : where(std::move(where)), client(this->where.address, std::move(security)) {}

  const WorkerAddress where;
  GenerationClient client;
  std::atomic<int> load{0};
  // Guarded by the pool's mutex.
  std::shared_ptr<const ServedModel> model;  // the last that it had; null: not known yet
  bool answers = false;
  bool asked = false;
};

absl::StatusOr<WorkerAddress> ParseWorkerAddress(const std::string& text) {
  WorkerAddress worker{kDefaultTenant, text};
  const size_t equals = text.find('=');
  if (equals != std::string::npos && text.find(':') > equals) {
    worker = {text.substr(0, equals), text.substr(equals + 1)};
    if (!IsTenantName(worker.tenant)) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", text, "': a tenant is 1 to 128 letters, digits, dots, hyphens and underscores"));
    }
  }
  if (worker.address.find(':') == std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is not host:port or unix:PATH, with TENANT= before it"));
  }
  return worker;
}

std::string ModelIdOf(const std::string& name) {
  std::string id = name.empty() ? "model" : name;
  for (char& c : id) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '.' && c != '_' && c != '-') c = '-';
  }
  return id;
}

WorkerPool::Lease::Lease(std::shared_ptr<Worker> worker, std::shared_ptr<const ServedModel> model)
    : worker_(std::move(worker)), model_(std::move(model)) {
  ++worker_->load;
  load_ = std::shared_ptr<void>(nullptr, [worker = worker_](void*) { --worker->load; });
}

const std::string& WorkerPool::Lease::address() const { return worker_->where.address; }
GenerationClient& WorkerPool::Lease::client() const { return worker_->client; }
int WorkerPool::Lease::load() const { return worker_->load; }

WorkerPool::WorkerPool(const std::vector<WorkerAddress>& addresses, std::string model_id,
                       const std::shared_ptr<const ChannelSecurity>& security)
    : model_id_(std::move(model_id)) {
  for (const WorkerAddress& address : addresses) workers_.push_back(std::make_shared<Worker>(address, security));
  for (const auto& worker : workers_) threads_.emplace_back([this, worker] { Watch(*worker); });
}

WorkerPool::~WorkerPool() {
  {
    MutexLock lock(&mutex_);
    stop_ = true;
    changed_.SignalAll();
    while (asked_ > 0) changed_.Wait(&mutex_);
  }
  for (std::thread& thread : threads_) thread.join();
}

absl::StatusOr<std::shared_ptr<const ServedModel>> WorkerPool::Ask(Worker& worker, const ServedModel* before) {
  TP_ASSIGN_OR_RETURN(const v1::GetModelResponse response, worker.client.GetModel(absl::Now() + kAnswerTime));
  if (before != nullptr && before->fingerprint == response.fingerprint()) {
    return std::shared_ptr<const ServedModel>();
  }
  auto model = std::make_shared<ServedModel>();
  model->id = model_id_.empty() ? ModelIdOf(response.name()) : model_id_;
  model->fingerprint = response.fingerprint();
  model->context_tokens = response.context_tokens();
  model->since_unix_seconds = absl::ToUnixSeconds(absl::Now());
  TP_ASSIGN_OR_RETURN(model->vocabulary, Vocabulary::Load(worker.client, response.vocabulary()));
  return model;
}

void WorkerPool::Watch(Worker& worker) {
  for (;;) {
    std::shared_ptr<const ServedModel> before;
    {
      MutexLock lock(&mutex_);
      if (stop_) return;
      before = worker.model;
    }
    const absl::StatusOr<std::shared_ptr<const ServedModel>> now = Ask(worker, before.get());
    MutexLock lock(&mutex_);
    if (now.ok() && *now != nullptr) worker.model = *now;
    if (now.ok() != worker.answers || !worker.asked) {
      if (now.ok()) {
        TP_LOG(Info, "http", "worker ", worker.where.address, " of tenant ", worker.where.tenant, " serves ",
               worker.model->id);
      } else {
        TP_LOG(Warning, "http", "worker ", worker.where.address, " does not answer: ", now.status().message());
      }
    }
    worker.answers = now.ok();
    worker.asked = true;
    changed_.SignalAll();
    const auto again = std::chrono::steady_clock::now() + kAskEvery;
    while (!stop_ && changed_.WaitUntil(&mutex_, again)) {
    }
  }
}

absl::StatusOr<std::vector<WorkerPool::Lease>> WorkerPool::Candidates(const Wanted& wanted) {
  MutexLock lock(&mutex_);
  std::set<std::string> models;
  bool unknown = false, known = false;
  std::vector<std::shared_ptr<Worker>> found;
  for (const auto& worker : workers_) {
    if (worker->where.tenant != wanted.tenant) continue;
    if (worker->model == nullptr) {
      unknown = true;
      continue;
    }
    models.insert(worker->model->id);
    if (!wanted.model.empty() && worker->model->id != wanted.model) continue;
    known = true;
    if (worker->answers && !wanted.without.contains(worker->where.address)) found.push_back(worker);
  }
  if (wanted.model.empty() && models.size() > 1) {
    return absl::InvalidArgumentError("model: is missing, and more than one is served here");
  }
  if (found.empty()) {
    if (known || unknown) return absl::UnavailableError("no worker for this request answers");
    return absl::NotFoundError(absl::StrCat("model: '", wanted.model.substr(0, 128), "' is not served here"));
  }
  const auto rank = [&](const Worker& worker) {
    return wanted.session_id.empty() ? static_cast<uint64_t>(worker.load.load())
                                     : ~client::SessionWeight(wanted.session_id, worker.where.address);
  };
  std::vector<std::pair<uint64_t, std::shared_ptr<Worker>>> ranked;
  for (const auto& worker : found) ranked.emplace_back(rank(*worker), worker);
  std::stable_sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<Lease> leases;
  for (const auto& [unused, worker] : ranked) leases.emplace_back(worker, worker->model);
  return leases;
}

absl::StatusOr<WorkerPool::Lease> WorkerPool::Choose(const Wanted& wanted) {
  TP_ASSIGN_OR_RETURN(std::vector<Lease> candidates, Candidates(wanted));
  return std::move(candidates.front());
}

void WorkerPool::Asked(int count) {
  MutexLock lock(&mutex_);
  asked_ += count;
  if (asked_ == 0) changed_.SignalAll();
}

void WorkerPool::Find(Wanted wanted, v1::EstimateRequest question, std::function<void(absl::StatusOr<Route>)> done) {
  if (!wanted.session_id.empty()) return FindForSession(std::move(wanted), std::move(question), std::move(done));
  absl::StatusOr<std::vector<Lease>> found = Candidates(wanted);
  if (!found.ok()) return done(found.status());
  if (found->size() == 1) return done(Route{std::move(found->front())});
  auto asked = std::make_shared<std::vector<Lease>>();
  std::vector<GenerationClient*> clients;
  for (Lease& lease : *found) {
    if (clients.size() == client::kMostAsked) break;
    clients.push_back(&lease.client());
    asked->push_back(std::move(lease));
  }
  Asked(1);
  client::AskEstimates(clients, question, absl::Now() + client::kEstimateTime,
                       [this, asked, done = std::move(done)](client::Estimates estimates) {
                         std::vector<client::Candidate> candidates;
                         for (size_t i = 0; i < estimates.size(); ++i) {
                           candidates.push_back({std::move(estimates[i]), (*asked)[i].load()});
                         }
                         const int best = std::max(client::FirstTokenFirst(candidates), 0);
                         done(Route{std::move((*asked)[static_cast<size_t>(best)])});
                         Asked(-1);
                       });
}

void WorkerPool::FindForSession(Wanted wanted, v1::EstimateRequest question,
                                std::function<void(absl::StatusOr<Route>)> done) {
  absl::StatusOr<Lease> found = Choose(wanted);
  if (!found.ok()) return done(found.status());
  auto lease = std::make_shared<Lease>(*std::move(found));
  Asked(1);
  lease->client().StartEstimate(
      question,
      [this, lease, wanted = std::move(wanted), question,
       done = std::move(done)](absl::StatusOr<v1::EstimateResponse> estimate) mutable {
        if (estimate.ok()) {
          done(Route{std::move(*lease), estimate->session_turns()});
        } else if (absl::IsUnavailable(estimate.status())) {
          wanted.without.insert(lease->address());
          FindForSession(std::move(wanted), std::move(question), std::move(done));
        } else {  // the request itself will be told
          done(Route{std::move(*lease)});
        }
        Asked(-1);
      },
      absl::Now() + client::kEstimateTime);
}

std::vector<std::shared_ptr<const ServedModel>> WorkerPool::Models(const std::string& tenant) const {
  MutexLock lock(&mutex_);
  std::map<std::string, std::shared_ptr<const ServedModel>> models;
  for (const auto& worker : workers_) {
    if (worker->where.tenant == tenant && worker->answers) models.emplace(worker->model->id, worker->model);
  }
  std::vector<std::shared_ptr<const ServedModel>> list;
  for (auto& [id, model] : models) list.push_back(std::move(model));
  return list;
}

bool WorkerPool::HasTenant(const std::string& tenant) const {
  return std::any_of(workers_.begin(), workers_.end(),
                     [&](const auto& worker) { return worker->where.tenant == tenant; });
}

int WorkerPool::answering() const {
  MutexLock lock(&mutex_);
  return static_cast<int>(
      std::count_if(workers_.begin(), workers_.end(), [](const auto& worker) { return worker->answers; }));
}

void WorkerPool::WaitForFirstAnswers() {
  MutexLock lock(&mutex_);
  while (!std::all_of(workers_.begin(), workers_.end(), [](const auto& worker) { return worker->asked; })) {
    changed_.Wait(&mutex_);
  }
}

}  // namespace tidepool::http
