#include "client/estimates.h"

#include <memory>
#include <utility>

#include "base/mutex.h"

namespace tidepool::client {
namespace {

class Gathering {
 public:
  Gathering(size_t count, std::function<void(Estimates)> done)
      : done_(std::move(done)), left_(count), estimates_(count, absl::UnavailableError("has not answered")) {}

  void Add(size_t index, absl::StatusOr<v1::EstimateResponse> estimate) {
    Estimates all;
    {
      MutexLock lock(&mutex_);
      estimates_[index] = std::move(estimate);
      if (--left_ > 0) return;
      all = std::move(estimates_);
    }
    done_(std::move(all));
  }

 private:
  const std::function<void(Estimates)> done_;
  Mutex mutex_;
  size_t left_ ABSL_GUARDED_BY(mutex_);
  Estimates estimates_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

void AskEstimates(const std::vector<GenerationClient*>& clients, const v1::EstimateRequest& request,
                  absl::Time deadline, std::function<void(Estimates)> done) {
  if (clients.empty()) return done({});
  auto gathering = std::make_shared<Gathering>(clients.size(), std::move(done));
  for (size_t i = 0; i < clients.size(); ++i) {
    clients[i]->StartEstimate(
        request,
        [gathering, i](absl::StatusOr<v1::EstimateResponse> estimate) { gathering->Add(i, std::move(estimate)); },
        deadline);
  }
}

}  // namespace tidepool::client
