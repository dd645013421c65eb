// The Recall stream on the worker's side. A request waits for the stream while its deadline allows; once the service
// has been away for longer than recall_patience, requests fail at once until it is back. Requests go out on the thread
// that makes them, or on gRPC's while others go out, and answers are taken on gRPC's; the lane's own thread makes
// streams and ends what is late.
#ifndef TIDEPOOL_CACHESERVICE_REMOTE_RECALL_LANE_H_
#define TIDEPOOL_CACHESERVICE_REMOTE_RECALL_LANE_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "base/mutex.h"
#include "cacheservice/remote/lane_stream.h"
#include "cacheservice/remote/remote_cache.h"
#include "cacheservice/wire/payload_message.h"
#include "tidepool/v1/cache_store.grpc.pb.h"

namespace tidepool {

class RecallLane {
 public:
  struct Counters {
    std::atomic<int64_t> rows{0}, bytes{0}, missing{0}, reconnects{0};
  };

  RecallLane(const RemoteCacheOptions& options, const std::shared_ptr<grpc::Channel>& channel);
  ~RecallLane();

  void Recall(std::vector<RowSelection> selections, absl::Time deadline,
              std::function<void(absl::StatusOr<RecalledRows>)> done);
  // Ends the stream and fails what was asked (Unavailable).
  void Interrupt();
  // The service is there again: connects without further pause, and requests wait for that.
  void Resume();
  const Counters& counters() const { return counters_; }

 private:
  using Clock = std::chrono::steady_clock;
  using Stream = LaneStream<grpc::ByteBuffer>;
  struct Request {
    std::vector<RowSelection> selections;
    Clock::time_point deadline;
    std::function<void(absl::StatusOr<RecalledRows>)> done;
    RecalledRows rows;  // what has come so far
  };

  void Run();
  // One life of a stream. Returns how it ended.
  grpc::Status RunStream();
  // Of the stream under way. The next message to be written: the hello, then one for each request.
  std::optional<grpc::ByteBuffer> NextMessage();
  void Take(grpc::ByteBuffer* message);
  void Break();
  // The request that the response is to, once all of its responses have come; null: it has not, or nobody waits.
  std::unique_ptr<Request> TakeAnswered(const v1::RecallResponse& response, const Payload& rows);
  absl::Status Check(const Request& request) const;
  // Ends what is past its deadline; everything when `all`.
  void Expire(bool all, const absl::Status& why);
  // When the thread has something to do, should nobody wake it; it is about to wait until then.
  Clock::time_point NextWake() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const RemoteCacheOptions options_;
  const std::shared_ptr<grpc::Channel> channel_;
  Counters counters_;
  Mutex mutex_;
  CondVar changed_;
  std::map<uint64_t, std::unique_ptr<Request>> requests_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  bool connected_ ABSL_GUARDED_BY(mutex_) = false;
  bool broken_ ABSL_GUARDED_BY(mutex_) = false;
  bool resumed_ ABSL_GUARDED_BY(mutex_) = false;  // since the pause before the present attempt
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  Clock::time_point away_since_ ABSL_GUARDED_BY(mutex_) = Clock::time_point::max();
  grpc::ClientContext* context_ ABSL_GUARDED_BY(mutex_) = nullptr;
  Stream* stream_ ABSL_GUARDED_BY(mutex_) = nullptr;  // null: none, or it ends
  int starting_ ABSL_GUARDED_BY(mutex_) = 0;          // who has taken stream_ and is to call Write
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;      // a message is, or is about to be
  bool hello_sent_ ABSL_GUARDED_BY(mutex_) = false;
  v1::RecallRequest message_ ABSL_GUARDED_BY(mutex_);  // kept for its memory: a request names hundreds of blocks
  uint64_t next_sent_ ABSL_GUARDED_BY(mutex_) = 0;     // what has a lower id has been sent
  Clock::time_point next_wake_ ABSL_GUARDED_BY(mutex_) = Clock::time_point::max();
  std::thread thread_;
};

}  // namespace tidepool

#endif  // TIDEPOOL_CACHESERVICE_REMOTE_RECALL_LANE_H_
