#include "client/http/worker_pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/log.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "client/http/api_keys.h"

namespace tidepool::http {
namespace {

constexpr std::chrono::seconds kAskEvery{1};
constexpr absl::Duration kAnswerTime = absl::Seconds(10);  // a worker whose machine is busy

// Highest-random-weight hashing: the same worker for a session from every front, and others' sessions stay where they
// are when one goes.
uint64_t Weight(const std::string& session_id, const std::string& address) {
  const Sha256::Digest digest = Sha256().AddField(session_id).AddField(address).Finish();
  uint64_t weight = 0;
  std::memcpy(&weight, digest.data(), sizeof weight);
  return weight;
}

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

absl::StatusOr<WorkerPool::Lease> WorkerPool::Choose(const std::string& tenant, const std::string& model,
                                                     const std::string& session_id,
                                                     const std::set<std::string>& without) {
  MutexLock lock(&mutex_);
  std::set<std::string> models;
  bool unknown = false, known = false;
  std::shared_ptr<Worker> best;
  for (const auto& worker : workers_) {
    if (worker->where.tenant != tenant) continue;
    if (worker->model == nullptr) {
      unknown = true;
      continue;
    }
    models.insert(worker->model->id);
    if (!model.empty() && worker->model->id != model) continue;
    known = true;
    if (!worker->answers || without.contains(worker->where.address)) continue;
    if (best == nullptr ||
        (session_id.empty() ? worker->load < best->load
                            : Weight(session_id, worker->where.address) > Weight(session_id, best->where.address))) {
      best = worker;
    }
  }
  if (model.empty() && models.size() > 1) {
    return absl::InvalidArgumentError("model: is missing, and more than one is served here");
  }
  if (best != nullptr) return Lease(best, best->model);
  if (known || unknown) return absl::UnavailableError("no worker for this request answers");
  return absl::NotFoundError(absl::StrCat("model: '", model.substr(0, 128), "' is not served here"));
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
