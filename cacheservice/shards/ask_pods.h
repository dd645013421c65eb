// The same kind of blocking call to several pods at once: each on a thread of its pod, so that a slow one holds up
// nobody but itself, and the caller not past its deadline.
#ifndef TIDEPOOL_CACHESERVICE_SHARDS_ASK_PODS_H_
#define TIDEPOOL_CACHESERVICE_SHARDS_ASK_PODS_H_

#include <algorithm>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/mutex.h"
#include "cacheservice/shards/pod.h"

namespace tidepool {

// How long to wait: for all until `deadline`; when all but `stragglers` have answered, for these only `grace`.
struct AskPatience {
  absl::Time deadline;
  size_t stragglers = 0;
  absl::Duration grace = absl::InfiniteDuration();
};

// The answer of each pod, in order; DeadlineExceeded of one that had none in time. `call(i, connection)` owns what it
// uses: it may run on when this has returned.
template <typename T>
std::vector<absl::StatusOr<T>> AskPods(const std::vector<std::shared_ptr<Pod>>& pods, const AskPatience& patience,
                                       std::function<absl::StatusOr<T>(size_t, RemoteCache&)> call) {
  struct Answers {
    Mutex mutex;
    CondVar changed;
    std::vector<std::optional<absl::StatusOr<T>>> of ABSL_GUARDED_BY(mutex);
    size_t left ABSL_GUARDED_BY(mutex) = 0;
  };
  const absl::Status stopped = absl::UnavailableError("the connections to the cache service are being closed");
  auto answers = std::make_shared<Answers>();
  {
    MutexLock lock(&answers->mutex);
    answers->of.resize(pods.size());
    answers->left = pods.size();
  }
  const auto put = [answers](size_t i, absl::StatusOr<T> answer) {
    MutexLock lock(&answers->mutex);
    answers->of[i] = std::move(answer);
    --answers->left;
    answers->changed.SignalAll();
  };
  for (size_t i = 0; i < pods.size(); ++i) {
    const bool runs =
        pods[i]->Run([put, call, i, stopped, deadline = patience.deadline, pod = pods[i].get()](RemoteCache* cache) {
          if (cache == nullptr) return put(i, stopped);
          if (absl::Now() >= deadline)
            return put(i, absl::DeadlineExceededError("the pod was busy until the deadline"));
          absl::StatusOr<T> answer = call(i, *cache);
          pod->Report(answer.status());
          put(i, std::move(answer));
        });
    if (!runs) put(i, stopped);
  }
  const auto in = [](absl::Duration wait) {
    return std::chrono::steady_clock::now() + absl::ToChronoMilliseconds(std::min(wait, absl::Hours(1)));
  };
  const auto until = in(patience.deadline - absl::Now());
  std::vector<absl::StatusOr<T>> all;
  MutexLock lock(&answers->mutex);
  while (answers->left > patience.stragglers && answers->changed.WaitUntil(&answers->mutex, until)) {
  }
  const auto last = std::min(until, in(patience.grace));
  while (answers->left > 0 && answers->changed.WaitUntil(&answers->mutex, last)) {
  }
  for (std::optional<absl::StatusOr<T>>& answer : answers->of) {
    if (answer.has_value()) {
      all.push_back(*std::move(answer));
    } else {
      all.push_back(absl::DeadlineExceededError("cache service: no answer in time"));
    }
  }
  return all;
}

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_SHARDS_ASK_PODS_H_
